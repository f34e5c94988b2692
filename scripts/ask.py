"""Model folder + question -> its answer, from llama.cpp in this process: to try a GGUF where no Ollama is.

Of a folder with several types the first answers, which is also the one that Ollama has under the model's own name.

python -m scripts.ask artifacts/terminology/tiny/model "Explain the medical term: Hypertension"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.answers import Request
from models.embedded import first_gguf, open_gguf
from plumbing.errors import UserError, run


def main() -> None:
    args = _parser().parse_args()
    gguf = first_gguf(Path(args.model))
    with open_gguf(gguf) as backend:
        answer = backend.ask(Request("question", ({"role": "user", "content": args.question},)))
    if answer.error:
        raise UserError(f"{gguf}: no answer: {answer.error}")
    print(answer.text.strip(), flush=True)
    print(f"({gguf.name} said so, and may be wrong: educational, not medical advice)", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.ask", description="Ask a model folder's GGUF one question."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("question")
    return parser


if __name__ == "__main__":
    run(main)
