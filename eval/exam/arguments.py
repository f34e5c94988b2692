"""The command line of `python -m eval.adherence`."""

from __future__ import annotations

import argparse

from contract.example import SPLITS
from eval.exam.conditions import CONDITIONS

DATA = "artifacts/terminology/dataset"
MODEL = "medical-mistral"
MAX_ERRORS = 0.02  # more requests without an answer than these, and the rest is no fair sample


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m eval.adherence", description="Judge a model by its task's contract."
    )
    backend = found.add_mutually_exclusive_group()
    backend.add_argument("--model", help=f"a model registered with Ollama (default {MODEL})")
    backend.add_argument("--gguf", metavar="FILE", help="a model folder's GGUF, answered in this process by llama.cpp")
    backend.add_argument("--replay", metavar="FILE", help="recorded answers: JSONL of {id, text, done_reason}")
    found.add_argument(
        "--host", help="Ollama's address, or several: a,b (default: OLLAMA_HOST, else http://127.0.0.1:11434)"
    )
    found.add_argument("--data", default=DATA, help=f"the dataset folder (default {DATA})")
    found.add_argument("--split", default="test", choices=SPLITS, help="which rows to ask (default test)")
    found.add_argument("--limit", type=_positive, metavar="N", help="ask N rows, even over categories and concepts")
    _add_questions(found)
    found.add_argument(
        "--against", action="append", default=[], metavar="MODEL",
        help="ask another model the same: registered with Ollama, a GGUF, or a report's folder; may be given again",
    )  # fmt: skip
    found.add_argument(
        "--against-shots", type=_positive, metavar="N", help="ask the others once more, with N training examples told"
    )
    found.add_argument("--gate", metavar="FILE", help="bounds as TOML: exit 0 met, 2 missed, 3 too few answers to say")
    found.add_argument("--out", help="the report folder (default: reports/<model> beside the dataset)")
    found.add_argument("--json", action="store_true", help="print report.json instead of the table")
    _add_limits(found)
    return found


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--condition", default="served", choices=CONDITIONS,
        help="who tells the model the form: its own SYSTEM (served, the default), a system message, the user, nobody",
    )  # fmt: skip
    parser.add_argument(
        "--few-shot", type=_count, default=0, metavar="N", help="tell N training examples as earlier turns (default 0)"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=1, metavar="K", help="ask each row K times, each with a seed of its own"
    )
    parser.add_argument(
        "--temperatures", type=_degrees, default=(0.0,), metavar="T,T", help="ask at each of these (default 0)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option instead of the model's own: num_ctx=2048",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=_positive, default=1, metavar="N", help="requests at a time (default 1)")
    parser.add_argument(
        "--max-errors", type=_share, default=MAX_ERRORS, metavar="SHARE",
        help=f"the run fails when a larger share of the requests got no answer (default {MAX_ERRORS})",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_positive, default=300, metavar="SECONDS", help="for one answer (default 300)"
    )
    parser.add_argument("--fresh", action="store_true", help="ask again what an earlier run has recorded")


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return value


def _degrees(text: str) -> tuple[float, ...]:
    try:
        degrees = tuple(float(part) for part in text.split(","))
    except ValueError:
        degrees = ()
    if not degrees or not all(0 <= degree <= 2 for degree in degrees) or len(set(degrees)) < len(degrees):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of different temperatures from 0 to 2, such as 0,0.3,0.7"
        )
    return degrees
