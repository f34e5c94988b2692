"""Judged answers -> report folder: report.json for programs, report.md for people, answers.jsonl as the evidence."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.contract import Contract
from contract.errors import UserError
from contract.example import Example
from contract.handover import new_folder, read_manifest, write_manifest
from eval.backends import Answer
from eval.intervals import Rate, wilson
from eval.verdict import CLASSES, Verdict

SHOWN_FAILURES = 10  # in report.md; answers.jsonl holds all


@dataclass(frozen=True)
class Judged:
    """One request's fate: the example, what came, and the verdict; no verdict on an answer that never came."""

    example: Example
    answer: Answer
    verdict: Verdict | None

    def row(self) -> dict[str, Any]:
        """A line of answers.jsonl; `--replay` reads it back."""
        example = {key: getattr(self.example, key) for key in ("id", "concept", "category", "request")}
        verdict = dataclasses.asdict(self.verdict) | {"adheres": self.verdict.adheres} if self.verdict else {}
        answer = dataclasses.asdict(self.answer) | {"seconds": round(self.answer.seconds, 3)}
        return example | answer | verdict


@dataclass(frozen=True)
class Report:
    backend: str
    model: str
    attempted: int  # = judged + failed
    judged: int
    failed: int  # no answer came; in no rate below
    errors: dict[str, int]  # kind of error -> answers that never came
    adherence: Rate
    named: Rate  # the requested concept stands in the first prose section
    keywords: float | None  # mean share of the examples' keywords found
    sections: dict[str, Rate]  # section -> answers that have it and break none of its rules
    categories: dict[str, Rate]  # category -> adherence
    primary: dict[str, int]  # class -> answers that count under it; sums to the answers that fail
    classes: dict[str, int]  # class -> answers that show it at all
    seconds: float  # for all requests, waiting included

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def summarise(contract: Contract, backend: str, model: str, rows: Sequence[Judged], seconds: float) -> Report:
    """The rates over the answers that came; the others are counted beside them."""
    judged = [(row.example, row.verdict) for row in rows if row.verdict]
    verdicts = [verdict for _, verdict in judged]
    errors = Counter(row.answer.error_kind for row in rows if not row.verdict)
    named = [v.named for v in verdicts if v.named is not None]
    keywords = [v.keywords for v in verdicts if v.keywords is not None]
    categories = sorted({row.example.category for row in rows})
    return Report(
        backend, model, len(rows), len(judged), errors.total(), dict(sorted(errors.items())),
        adherence=_rate([v.adheres for v in verdicts]),
        named=_rate(named),
        keywords=round(sum(keywords) / len(keywords), 4) if keywords else None,
        sections={s.name: _rate([_is_sound(v, s.name) for v in verdicts]) for s in contract.sections},
        categories={name: _rate([v.adheres for e, v in judged if e.category == name]) for name in categories},
        primary=_in_order(Counter(v.primary for v in verdicts if v.primary)),
        classes=_in_order(Counter(cls for v in verdicts for cls in {violation.cls for violation in v.violations})),
        seconds=round(seconds, 1),
    )  # fmt: skip


def _rate(hits: Sequence[bool]) -> Rate:
    return wilson(sum(hits), len(hits))


def _is_sound(verdict: Verdict, section: str) -> bool:
    """Present and unbroken.  A fault of the whole leaves a section sound, unless there is no text to hold it."""
    nothing = {"EMPTY_ANSWER", "REPETITION"}
    return not any(v.section == section or v.cls in nothing for v in verdict.violations)


def _in_order(counts: Counter[str]) -> dict[str, int]:
    return {cls: counts[cls] for cls in CLASSES if cls in counts}


def write_report(
    out: Path, report: Report, rows: Sequence[Judged], inputs: dict[str, str], settings: dict[str, Any], started: float
) -> None:
    """The report folder, whole or not at all."""
    with new_folder(out, "report") as folder:
        lines = [json.dumps(row.row(), ensure_ascii=False) + "\n" for row in rows]
        (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
        (folder / "report.md").write_text(to_markdown(report, rows, settings), encoding="utf-8")
        counts = {"attempted": report.attempted, "judged": report.judged, "failed": report.failed}
        write_manifest(folder, "report", inputs, settings, counts, packages=("httpx",), started=started)


def read_report(folder: Path) -> Report:
    """The report of a report folder.  Raises UserError when it is none."""
    read_manifest(folder, "report")
    try:
        table = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        for name in ("adherence", "named"):
            table[name] = Rate(**table[name])
        for name in ("sections", "categories"):
            table[name] = {key: Rate(**value) for key, value in table[name].items()}
        return Report(**table)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder / 'report.json'}: not a report of this version; run `python -m eval.adherence` again"
        ) from None


def to_markdown(report: Report, rows: Sequence[Judged], settings: dict[str, Any]) -> str:
    """The same figures for a reader, and the first failed answers with the text that broke a rule."""
    parts = [f"# {report.model}: adherence {report.adherence}\n", summary(report), "\nIntervals are Wilson's, 95 %.\n"]
    parts.append(_rates("Section", "present without a violation", report.sections))
    parts.append(_rates("Category", "adherence", report.categories))
    if report.classes:
        parts.append("| failure class | answers that count under it | answers that show it |\n|---|---|---|")
        parts += [f"| {cls} | {report.primary.get(cls, 0)} | {n} |" for cls, n in report.classes.items()]
    failures = [row for row in rows if row.verdict and not row.verdict.adheres]
    if failures:
        parts.append(
            f"\n## Failed answers ({min(len(failures), SHOWN_FAILURES)} of {len(failures)}; all in answers.jsonl)\n"
        )
        parts += [_failure(row) for row in failures[:SHOWN_FAILURES]]
    parts.append("\n## What was measured\n")
    parts += [f"- {key}: {value}" for key, value in settings.items()]
    return "\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """One line: how many were asked, judged and failed, and whether the content is on the subject."""
    errors = ", ".join(f"{n} {kind}" for kind, n in report.errors.items())
    failed = f"{report.failed} failed" + (f" ({errors})" if errors else "")
    return (
        f"{report.attempted} attempted = {report.judged} judged + {failed}; "
        f"term named {report.named}; {report.seconds} s, by {report.backend}"
    )


def _rates(what: str, meaning: str, rates: dict[str, Rate]) -> str:
    lines = [f"| {what.lower()} | {meaning} | of | |", "|---|---|---|---|"]
    lines += [f"| {name} | {rate} | {rate.n} | {_bar(rate)} |" for name, rate in rates.items()]
    return "\n".join(lines) + "\n"


def _bar(rate: Rate) -> str:
    full = round(20 * (rate.share or 0))
    return "█" * full + "░" * (20 - full)


def _failure(row: Judged) -> str:
    assert row.verdict is not None
    faults = "; ".join(
        f"{v.cls}{f' in {v.section}' if v.section else ''}: {v.found[:80]!r}" for v in row.verdict.violations
    )
    return f"- **{row.verdict.primary}** `{row.example.id}` {row.example.request}\n  - {faults}"
