"""Report -> report.md and a table for a terminal: the figures, and the first failed answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.exam.comparison import Comparison
from eval.judge.answer_row import AnswerRow
from eval.judge.content import ContentSummary
from eval.judge.verdict import READINGS
from eval.report.report import Report, summary
from eval.stats.intervals import Rate

SHOWN_FAILURES = 10  # answers.jsonl has all of them
SHOWN_IDS = 20
_HEAD = "| model | keeps the form | loose | lenient | names the term | content |\n|---|---|---|---|---|---|"


def to_markdown(report: Report, rows: Sequence[AnswerRow], settings: dict[str, Any]) -> str:
    """The whole page."""
    parts = [f"# {report.model}: adherence {report.adherence}\n", summary(report)]
    parts += ["\nEducational, not medical advice.\n", _models(report)]
    parts.append(f"\nIntervals are Wilson's, 95 %. With whole concepts resampled: {_clustered_line(report)}.\n")
    parts += [_against(other) for other in report.others if not other.pretended and other.paired]
    parts.append(_content(report.content))
    parts.append(_rates("Section", "present without a violation", report.sections))
    parts.append(_rates("Category", "adherence", report.categories))
    if report.choices:
        parts.append(_choices(report))
    if report.has_temperatures:
        parts.append("| temperature | adherence, every repeat |\n|---|---|")
        parts += [f"| {rates.temperature:g} | {rates} |" for rates in report.ladder]
        parts.append("")
    if report.classes:
        parts.append("| failure class | answers that count under it | answers that show it |\n|---|---|---|")
        parts += [f"| {cls} | {report.primary.get(cls, 0)} | {n} |" for cls, n in report.classes.items()]
    if report.marked:
        parts.append(f"\n{marked_line(report)}")
    failures = [row for row in rows if row.verdict and not row.verdict.adheres]
    if failures:
        shown = failures[:SHOWN_FAILURES]
        parts.append(f"\n## Failed answers ({len(shown)} of {len(failures)}; all in answers.jsonl)\n")
        parts += [_failure(row) for row in shown]
    parts.append("\n## What was measured\n")
    parts += [f"- {key}: {value}" for key, value in settings.items()]
    return "\n".join(parts) + "\n"


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


def _models(report: Report) -> str:
    names = [f"{_cell(other.name)}{' (baseline)' * other.pretended}" for other in report.others]
    return "\n".join([_HEAD, *map(_line, [f"**{_cell(report.model)}**", *names], [report, *report.others])])


def _line(name: str, of: Report | Comparison) -> str:
    return f"| {name} | {of.adherence} | {of.loose} | {of.lenient} | {of.named} | {_score(of.content)} |"


def _against(other: Comparison) -> str:
    assert other.paired is not None
    paired = other.paired
    small = "none" if paired.smallest is None else f"{100 * paired.smallest:.1f} points"
    lines = [
        f"Against {other.name}: {paired}; with whole concepts resampled {100 * paired.clustered_low:+.1f} to "
        f"{100 * paired.clustered_high:+.1f}. The smallest difference that {paired.n} requests could have shown: {small}.",
    ]
    for change, ids in (("gained", paired.gained), ("lost", paired.lost)):
        shown = ", ".join(ids[:SHOWN_IDS]) + (f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else "")
        lines.append(f"- {change}: {shown or 'none'}")
    return "\n".join(lines) + "\n"


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


def _choices(report: Report) -> str:
    lines = ["| choice | accuracy | macro-F1 | no option read |", "|---|---|---|---|"]
    for name, score in report.choices.items():
        f1 = "-" if score.macro_f1 is None else f"{score.macro_f1:.3f}"
        lines.append(f"| {name} | {score.accuracy} | {f1} | {score.unread} |")
    return "\n".join(lines) + "\n"


def _rates(what: str, meaning: str, rates: dict[str, Rate]) -> str:
    lines = [f"| {what.lower()} | {meaning} | of | |", "|---|---|---|---|"]
    lines += [f"| {_cell(name)} | {rate} | {rate.n} | {_bar(rate)} |" for name, rate in rates.items()]
    return "\n".join(lines) + "\n"


def _bar(rate: Rate) -> str:
    full = round(20 * (rate.share or 0))
    return "█" * full + "░" * (20 - full)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _failure(row: AnswerRow) -> str:
    assert row.verdict is not None
    faults = "; ".join(
        f"{v.cls}{f' in {v.section}' if v.section else ''}: {v.found[:80]!r}" for v in row.verdict.violations
    )
    return f"- **{row.verdict.primary}** `{row.example.id}` {row.example.request}\n  - {faults}"
