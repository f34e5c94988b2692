"""Report and Evidence: the figures of a run, and the answers they were counted from."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from eval.exam.comparison import Comparison
from eval.exam.temperatures import TemperatureRates
from eval.judge.answer_row import AnswerRow
from eval.judge.content import ChoiceScore, ContentSummary
from eval.stats.intervals import Rate
from plumbing.errors import UserError
from plumbing.handover import read_manifest


@dataclass(frozen=True)
class Report:
    """Rates have Wilson's interval; `clustered` holds the first four again, with whole concepts resampled."""

    backend: str
    model: str
    attempted: int  # = judged + failed
    judged: int
    failed: int  # no answer came; not in any rate below
    errors: dict[str, int]  # kind of error -> requests without an answer
    adherence: Rate  # the strict reading: the contract, exactly
    loose: Rate
    lenient: Rate
    named: Rate  # the first prose section names the requested concept
    clustered: dict[str, Rate]  # strict, loose, lenient, named
    content: ContentSummary
    choices: dict[str, ChoiceScore]  # choice section -> how often the right option was given
    sections: dict[str, Rate]  # section -> answers that have it and break none of its rules
    categories: dict[str, Rate]  # category -> adherence
    primary: dict[str, int]  # class -> answers that count under it; the sum is the number of answers that fail
    classes: dict[str, int]  # class -> answers that show it at all
    marked: tuple[str, ...]  # ids of requests with marks of a prompt's syntax: a server may read them as control tokens
    seconds: float  # for all requests, waiting included
    condition: str = "served"  # where the model learned the form: eval/exam/conditions.py
    ladder: tuple[TemperatureRates, ...] = ()  # the figures above are of the first temperature's first repeat
    others: tuple[Comparison, ...] = ()  # other models and baselines on the same requests

    @property
    def has_temperatures(self) -> bool:
        """Whether `ladder` holds more than the figures above: several temperatures or repeats."""
        return len(self.ladder) > 1 or any(rates.pass_k for rates in self.ladder)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Evidence:
    """The answers that a report's figures were counted from."""

    rows: Sequence[AnswerRow]
    further: Sequence[AnswerRow] = ()  # other temperatures and repeats
    others: Mapping[str, Sequence[AnswerRow]] = field(default_factory=dict)  # other models' answers


def read_report(folder: Path) -> Report:
    """The report of a report folder.  Raises UserError when the folder does not hold one."""
    read_manifest(folder, "report")
    try:
        found: Report = _rebuilt(Report, json.loads((folder / "report.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{folder / 'report.json'}: not a report of this version; run `python -m eval.adherence` again"
        ) from None
    return found


def _rebuilt(hint: Any, value: Any) -> Any:
    """A value of type `hint` from what `dataclasses.asdict` and JSON made of it."""
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        return hint(**{name: _rebuilt(hints[name], of) for name, of in value.items()})  # type: ignore[operator]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        return None if value is None else _rebuilt(arguments[0], value)
    if origin is dict:
        return {key: _rebuilt(arguments[1], of) for key, of in value.items()}
    return tuple(_rebuilt(arguments[0], of) for of in value) if origin is tuple else value


def summary(report: Report) -> str:
    """One line: how many requests were asked, judged and failed, how many answers name the term, time and backend."""
    errors = ", ".join(f"{n} {kind}" for kind, n in report.errors.items())
    failed = f"{report.failed} failed" + (f" ({errors})" if errors else "")
    further = sum(rates.attempted for rates in report.ladder) - report.attempted
    first = (
        f" (each request's first answer at temperature {report.ladder[0].temperature:g}; the {further} others count by "
        "temperature only)"
        if report.ladder and further
        else ""
    )
    return (
        f"{report.attempted} attempted = {report.judged} judged + {failed}{first}; "
        f"term named {report.named}; {report.seconds} s, by {report.backend}"
    )
