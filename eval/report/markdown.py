"""Report -> report.md and a table for a terminal: the figures, and the first failed answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.judge.answer_row import AnswerRow
from eval.judge.content import ContentSummary
from eval.judge.verdict import READINGS
from eval.report.report import Report, summary
from eval.stats.intervals import Rate
from plumbing.templates import render

SHOWN_FAILURES = 10  # answers.jsonl has all of them
SHOWN_IDS = 20
TEMPLATE = Path(__file__).with_name("report.md.jinja")


def to_markdown(report: Report, rows: Sequence[AnswerRow], settings: dict[str, Any]) -> str:
    """The whole page; its layout and wording are in report.md.jinja."""
    failures = [row for row in rows if row.verdict and not row.verdict.adheres]
    values = dict(
        report=report, settings=settings, summary=summary(report), clustered=_clustered_line(report),
        content=_content(report.content), marked=marked_line(report) if report.marked else "",
        failures=failures, shown=failures[:SHOWN_FAILURES], shown_ids=SHOWN_IDS,
    )  # fmt: skip
    return render(TEMPLATE, values, {"score": _score, "repr": repr})


def to_terminal(report: Report) -> str:
    """The most important figures, one a line."""
    lines = [
        f"{report.model}: adherence {report.adherence}, loose {_share(report.loose)}, lenient {_share(report.lenient)}"
    ]
    lines += [summary(report), f"concepts resampled: {_clustered_line(report)}", _content(report.content).rstrip()]
    others = {f"({other.name})" if other.pretended else other.name: other for other in report.others}
    wide = max([24, *(len(name) + 2 for name in (*others, *report.sections, *report.categories))])
    for what, rates in (("section", report.sections), ("category", report.categories)):
        lines += [f"  {what:9}{name:{wide}}{rate}" for name, rate in rates.items()]
    lines += [f"  choice   {name:{wide}}{score.accuracy}" for name, score in report.choices.items()]
    lines += [f"  failed   {cls:{wide}}{n}" for cls, n in report.primary.items()]
    if report.has_temperatures:
        lines += [f"  temperature {rates.temperature:<{wide - 3}g}{rates}" for rates in report.ladder]
    for name, other in others.items():
        score = _score(other.content)
        lines.append(f"  against  {name:{wide}}{other.adherence}, term named {_share(other.named)}, content {score}")
        lines += [f"           {'':{wide}}{other.paired}"] if other.paired and not other.pretended else []
    lines += [marked_line(report)] if report.marked else []
    return "\n".join(line for line in lines if line)


def marked_line(report: Report) -> str:
    """The requests that a server may misread."""
    return (
        f"{len(report.marked)} requests hold marks of a prompt's syntax, which a server may read as control tokens "
        f"(python -m eval.parity reports whether it does): {', '.join(report.marked[:SHOWN_IDS])}"
    )


def _clustered_line(report: Report) -> str:
    """The headline's rates with the wider intervals."""
    return ", ".join(f"{name} {report.clustered[name]}" for name in READINGS)


def _share(rate: Rate) -> str:
    return "-" if rate.share is None else f"{100 * rate.share:.1f} %"


def _score(content: ContentSummary) -> str:
    return "-" if content.score is None else f"{content.score:.2f}"


def _content(content: ContentSummary) -> str:
    if content.score is None:
        return ""
    covered = "-" if content.covered is None else f"{100 * content.covered:.1f} %"
    grade = "-" if content.grade is None else f"{content.grade:.1f}"
    bands = ", ".join(f"{name} {n}" for name, n in content.bands.items())
    return (
        f"Content: key words found {covered}; answers with a number that is in neither fact nor request {content.unsupported}; "
        f"median {content.words:g} words, reading grade {grade} ({bands}).\n"
    )
