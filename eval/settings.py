"""The command line of `python -m eval.adherence` -> Settings."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.example import SPLITS
from eval.exam.conditions import CONDITIONS
from models.options import read_settings
from plumbing.errors import UserError

DATA = Path("artifacts/terminology/dataset")
MODEL = "medical-mistral"


@dataclass(frozen=True)
class Settings:
    """The defaults are here alone: the parser passes on only what was typed."""

    model: str = MODEL  # registered with Ollama
    gguf: Path | None = None  # instead: a model folder's GGUF, answered by llama.cpp in this process
    replay: Path | None = None  # instead: recorded answers
    host: str | None = None  # Ollama's address; None: OLLAMA_HOST, else this machine
    data: Path = DATA  # the dataset folder
    split: str = "test"
    limit: int | None = None  # rows that are asked; None: all
    condition: str = "served"  # how the model learns the form: eval/exam/conditions.py
    few_shot: int = 0  # training examples that are sent as earlier turns
    repeats: int = 1  # of each row at each temperature
    temperatures: tuple[float, ...] = (0.0,)
    options: Mapping[str, Any] = field(default_factory=dict)  # sent instead of the model's own parameters
    against: tuple[str, ...] = ()  # other models, GGUFs or reports
    against_shots: int | None = None  # the other models are asked once more, with so many examples
    gate: Path | None = None  # bounds as TOML
    out: Path | None = None  # the report folder; None: reports/<model> beside the dataset
    json: bool = False  # print report.json instead of the table
    concurrency: int = 1  # requests at a time
    max_errors: float = 0.02  # with a larger share of requests unanswered, the rest is not a fair sample
    timeout: int = 300  # seconds for one answer
    fresh: bool = False  # ask again what an earlier run recorded


def read_command_line() -> Settings:
    """The settings of this process.  Raises UserError when an option or the host cannot be used."""
    given = vars(_parser().parse_args())
    given["options"] = read_settings(given.get("options", ()))
    given["against"] = tuple(dict.fromkeys(given.get("against", ())))
    if "," in given.get("host", ""):
        raise UserError(
            f"--host {given['host']}: expected one address; for several servers put a proxy such as nginx "
            "in front of them and name the proxy (docs/judging.md)"
        )
    if given.get("against_shots") and not given["against"]:
        raise UserError("--against-shots sets how the other models are asked; name one with --against MODEL")
    return Settings(**given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.adherence", argument_default=argparse.SUPPRESS,
        description="Ask a model a dataset's held-out requests and report how often its answers keep the task's form.",
    )  # fmt: skip
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", help=f"a model registered with Ollama (default {MODEL})")
    model.add_argument("--gguf", type=Path, metavar="FILE", help="a GGUF, answered in this process by llama.cpp")
    model.add_argument("--replay", type=Path, metavar="FILE", help="recorded answers: JSONL of {id, text, done_reason}")
    add = parser.add_argument
    add("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    add("--data", type=Path, help=f"the dataset folder (default {DATA})")
    add("--split", choices=SPLITS, help="which rows to ask (default test)")
    add("--limit", type=positive, metavar="N", help="ask N rows, spread evenly over categories and concepts")
    add("--condition", choices=CONDITIONS,
        help="where the model learns the form: from its own SYSTEM (served, the default), from a system message, from "
        "the user's message, or nowhere (none)")  # fmt: skip
    add("--few-shot", type=_count, metavar="N", help="send N training examples as earlier turns (default 0)")
    add("--repeats", type=positive, metavar="K", help="ask each row K times, each time with another seed (default 1)")
    add("--temperatures", type=_temperatures, metavar="T,T", help="ask at each of these (default 0)")
    add("--set", action="append", dest="options", metavar="KEY=VALUE", help="an option instead of the model's own, "
        "such as num_ctx=2048; can be repeated")  # fmt: skip
    add("--against", action="append", metavar="MODEL", help="ask another model the same: a name in Ollama, a GGUF, or "
        "a report folder; can be repeated")  # fmt: skip
    add("--against-shots", type=positive, metavar="N", help="ask the others once more, with N training examples")
    add("--gate", type=Path, metavar="FILE", help="bounds as TOML: exit 0 met, 2 missed, 3 too few answers to decide")
    add("--out", type=Path, help="the report folder (default: reports/<model> beside the dataset)")
    add("--json", action="store_true", help="print report.json instead of the table")
    add("--concurrency", type=positive, metavar="N", help="requests at a time (default 1)")
    add("--max-errors", type=_share, metavar="SHARE", help="stop without a report when a larger share of the requests "
        f"got no answer (default {Settings.max_errors})")  # fmt: skip
    add("--timeout", type=positive, metavar="SECONDS", help=f"for one answer (default {Settings.timeout})")
    add("--fresh", action="store_true", help="ask again what an earlier run recorded")
    return parser


def _count(text: str, least: int = 0) -> int:
    if not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return int(text)


def positive(text: str) -> int:
    """An option's number of 1 or more.  Raises argparse.ArgumentTypeError."""
    return _count(text, 1)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 <= value <= 2 for value in found) or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different temperatures from 0 to 2, such as 0,0.3")
    return found
