"""Model folder + question -> its answer, from llama.cpp in this process: to try a GGUF where no Ollama is.

python -m scripts.ask artifacts/terminology/tiny/model "Explain the medical term: Hypertension"
"""

from __future__ import annotations

import argparse
from pathlib import Path

from contract.errors import UserError, run
from eval.backends import Request
from eval.embedded import open_gguf


def main() -> None:
    args = _parser().parse_args()
    folder = Path(args.model)
    ggufs = sorted(folder.glob("*.gguf"))
    if not ggufs:
        raise UserError(f"{folder}: no GGUF there; `make quantize` writes one into artifacts/TASK/PRESET/model")
    with open_gguf(ggufs[0]) as backend:
        answer = backend.ask(Request("question", ({"role": "user", "content": args.question},)))
    if answer.error:
        raise UserError(f"{ggufs[0]}: no answer: {answer.error}")
    print(answer.text.strip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.ask", description="Ask a model folder's GGUF one question."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("question")
    return parser


if __name__ == "__main__":
    run(main)
