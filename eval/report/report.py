"""Judged answers -> report folder: report.json for programs, report.md and report.html for people, answers.jsonl as proof."""

from __future__ import annotations

import dataclasses
import json
import types
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from contract.contract import Contract
from contract.kinds import Choice
from eval.exam.comparison import Compared
from eval.exam.temperatures import Rung
from eval.judge.answer_row import Judged, headline
from eval.judge.content import ChoiceScore, ContentSummary, choice_score, summarise_content
from eval.judge.content_faults import holds_marks
from eval.judge.verdict import CLASSES, Verdict
from eval.stats.intervals import Rate, clustered_rate, wilson
from plumbing.errors import UserError
from plumbing.handover import new_folder, read_manifest, write_manifest

READINGS = ("strict", "loose", "lenient")


@dataclass(frozen=True)
class Report:
    """Rates have Wilson's interval; `clustered` holds the headline's rates again, whole concepts drawn."""

    backend: str
    model: str
    attempted: int  # = judged + failed
    judged: int
    failed: int  # no answer came; in no rate below
    errors: dict[str, int]  # kind of error -> answers that never came
    adherence: Rate  # the strict reading: the contract, exactly
    loose: Rate
    lenient: Rate
    named: Rate  # the requested concept stands in the first prose section
    clustered: dict[str, Rate]  # strict, loose, lenient, named
    content: ContentSummary
    choices: dict[str, ChoiceScore]  # section -> how often the right option
    sections: dict[str, Rate]  # section -> answers that have it and break none of its rules
    categories: dict[str, Rate]  # category -> adherence
    primary: dict[str, int]  # class -> answers that count under it; sums to the answers that fail
    classes: dict[str, int]  # class -> answers that show it at all
    marked: tuple[str, ...]  # ids of requests that hold marks of a prompt's syntax: a server may take them as such
    seconds: float  # for all requests, waiting included
    condition: str = "served"  # how the form was told: eval/exam/conditions.py
    ladder: tuple[Rung, ...] = ()  # one a temperature; the figures above are of the first one's first repeat
    others: tuple[Compared, ...] = ()  # other models and pretended ones on the same requests

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Evidence:
    """What a report's figures were counted from."""

    rows: Sequence[Judged]
    further: Sequence[Judged] = ()  # other temperatures and repeats
    others: Mapping[str, Sequence[Judged]] = field(default_factory=dict)  # other models' answers


def summarise(contract: Contract, backend: str, model: str, rows: Sequence[Judged], seconds: float) -> Report:
    """The rates over the answers that came; the others are counted beside them."""
    judged = [(row, row.verdict) for row in rows if row.verdict]
    verdicts = [verdict for _, verdict in judged]
    errors = Counter(row.answer.error_kind for row in rows if not row.verdict)
    categories = sorted({row.example.category for row in rows})
    return Report(
        backend, model, len(rows), len(judged), errors.total(), dict(sorted(errors.items())),
        **headline(rows),
        clustered=_clustered(rows),
        content=summarise_content([row.content for row in rows if row.content]),
        choices=_choices(contract, judged),
        sections={s.name: _rate([is_sound(v, s.name) for v in verdicts]) for s in contract.sections},
        categories={name: _rate([v.adheres for row, v in judged if row.example.category == name]) for name in categories},
        primary=_in_order(Counter(v.primary for v in verdicts if v.primary)),
        classes=_in_order(Counter(cls for v in verdicts for cls in {violation.cls for violation in v.violations})),
        marked=tuple(row.example.id for row in rows if holds_marks(row.example.request)),
        seconds=round(seconds, 1),
    )  # fmt: skip


def _clustered(rows: Sequence[Judged]) -> dict[str, Rate]:
    judged = [(row.example.concept, row.verdict) for row in rows if row.verdict]
    found = {
        reading: clustered_rate([getattr(v, reading) for _, v in judged], [concept for concept, _ in judged])
        for reading in READINGS
    }
    named = [(v.named, concept) for concept, v in judged if v.named is not None]
    return found | {"named": clustered_rate([hit for hit, _ in named], [concept for _, concept in named])}


def _choices(contract: Contract, judged: Sequence[tuple[Judged, Verdict]]) -> dict[str, ChoiceScore]:
    scores = {}
    for section in contract.sections:
        if isinstance(section.kind, Choice):
            expected = [row.example.record[section.name] for row, _ in judged]
            given = [contract.read(row.answer.text).record.get(section.name) for row, _ in judged]
            scores[section.name] = choice_score(expected, given, section.kind.options)
    return scores


def _rate(hits: Sequence[bool]) -> Rate:
    return wilson(sum(hits), len(hits))


def is_sound(verdict: Verdict, section: str) -> bool:
    """Present and unbroken.  A fault of the whole leaves a section sound, unless there is no text to hold it."""
    nothing = {"EMPTY_ANSWER", "REPETITION"}
    return not any(v.section == section or (v.cls in nothing and not v.section) for v in verdict.violations)


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {cls: counts[cls] for cls in CLASSES if cls in counts}


def write_report(
    out: Path, report: Report, evidence: Evidence, inputs: dict[str, str], settings: dict[str, Any], started: float,
    further: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """The report folder, whole or not at all.  `further` are texts by file name, such as a gate's."""
    from eval.report.markdown import to_markdown
    from eval.report.page import to_html

    with new_folder(out, "report") as folder:
        _write_rows(folder / "answers.jsonl", evidence.rows)
        if evidence.further:
            _write_rows(folder / "repeats.jsonl", evidence.further)
        for number, rows in enumerate(evidence.others.values(), 1):
            _write_rows(folder / f"against-{number}.jsonl", rows)
        texts = {
            "report.json": report.to_json(),
            "report.md": to_markdown(report, evidence.rows, settings),
            "report.html": to_html(report, evidence, settings),
        }
        for name, text in (texts | dict(further or {})).items():
            (folder / name).write_text(text, encoding="utf-8")
        counts = {"attempted": report.attempted, "judged": report.judged, "failed": report.failed}
        write_manifest(folder, "report", inputs, settings, counts, packages=("httpx",), started=started)


def _write_rows(path: Path, rows: Sequence[Judged]) -> None:
    path.write_text("".join(json.dumps(row.row(), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_report(folder: Path) -> Report:
    """The report of a report folder.  Raises UserError when it is none."""
    read_manifest(folder, "report")
    try:
        found: Report = _rebuilt(Report, json.loads((folder / "report.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{folder / 'report.json'}: not a report of this version; run `python -m eval.adherence` again"
        ) from None
    return found


def _rebuilt(hint: Any, value: Any) -> Any:
    """What `dataclasses.asdict` and JSON have made of a value of this type, as it was."""
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
    """One line: how many were asked, judged and failed, and whether the content is on the subject."""
    errors = ", ".join(f"{n} {kind}" for kind, n in report.errors.items())
    failed = f"{report.failed} failed" + (f" ({errors})" if errors else "")
    further = sum(rung.attempted for rung in report.ladder) - report.attempted
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
