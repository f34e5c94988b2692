"""Model folder + question -> its answer from llama.cpp in this process, without an Ollama.

If the folder holds several types, the first one answers; Ollama serves the same one under the model's own name.

python -m scripts.ask artifacts/terminology/tiny/model "Explain the medical term: Hypertension"
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from contract.contract import load_contract
from models.answers import Request
from models.embedded import first_gguf, open_gguf
from plumbing.errors import UserError, run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.ask", description="Ask a model folder's GGUF one question."
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="what `python -m quantize` made")
    parser.add_argument("question", nargs="?", default="", help="default: the example of the model's task")
    args = parser.parse_args()
    gguf = first_gguf(Path(args.model))
    question = args.question or load_contract(gguf.with_name("task.toml")).example
    if not question:
        raise UserError(f"{args.model}: its task names no example; ask a question of your own")
    with open_gguf(gguf) as backend:
        answer = backend.ask(Request("question", ({"role": "user", "content": question},)))
    if answer.error:
        raise UserError(f"{gguf}: no answer: {answer.error}; ask again or export the model again")
    print(answer.text.strip(), flush=True)
    advice = "for education only, not medical or other professional advice"
    print(f"({gguf.name} wrote this, and it may be wrong: {advice})", file=sys.stderr)


if __name__ == "__main__":
    run(main)
