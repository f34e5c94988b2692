"""Report + its answers -> report.html: one page that needs only a browser.

Layout and wording are in report.html.jinja.  The page shows all failed answers, with the text that broke a rule marked,
and a filter over them.  It loads nothing, its one script is allowed by its hash, and the same input gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from contract.violation import Violation
from eval.judge.answer_row import AnswerRow
from eval.judge.verdict import MEANING, Verdict
from eval.report.markdown import marked_line
from eval.report.report import Evidence, Report, summary
from eval.report.summarise import in_order
from eval.stats.intervals import wilson
from plumbing.templates import render

TEMPLATE = Path(__file__).with_name("report.html.jinja")
SHOWN_FOUND = 160  # characters of a violation's text in the list above the answer, which marks the whole of it
# What a browser drops, changes or cannot show, and what UTF-8 cannot write -> one character for each: a control character
# becomes its picture; half of a surrogate pair and the controls without a picture become U+FFFD.
_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_SHOWN = _PICTURES | dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), 0xFFFD)


@dataclass(frozen=True)
class Piece:
    """A part of an answer and the numbers (from 1) of the violations it belongs to; without text, something is missing."""

    text: str
    numbers: tuple[int, ...] = ()
    label: str = ""
    expected: str = ""


@dataclass(frozen=True)
class Failure:
    """One failed answer; `number` is its position on the page."""

    number: int
    row: AnswerRow
    verdict: Verdict

    @property
    def classes(self) -> list[str]:
        """Primary class first."""
        return list(dict.fromkeys([self.verdict.primary, *(v.cls for v in self.verdict.violations)]))

    @property
    def pieces(self) -> list[Piece]:
        return list(pieces(self.row.answer.text, self.verdict.violations))


def to_html(report: Report, evidence: Evidence, settings: dict[str, Any]) -> str:
    """The whole page; UTF-8 can write it."""
    filters = {"setting": setting, "cut": cut, "label": label, "hash": _hash}
    failures = failed_answers(evidence.rows)
    values = dict(
        report=report, settings=settings, meaning=MEANING, wilson=wilson, summary=summary(report),
        marked=marked_line(report) if report.marked else "",
        failures=failures, numbers={failure.row.example.id: failure.number for failure in failures},
        by_section=_counted(pair for f in failures for pair in {(v.cls, v.section) for v in f.verdict.violations}),
        by_category=_counted((f.verdict.primary, f.row.example.category) for f in failures),
        shown=Counter(cls for failure in failures for cls in failure.classes),
        categories=Counter(failure.row.example.category for failure in failures),
        unanswered=[row for row in evidence.rows if not row.verdict], further=len(evidence.further),
    )  # fmt: skip
    page = render(TEMPLATE, values, filters, autoescape=True)
    return page.translate(_SHOWN)


def failed_answers(rows: Sequence[AnswerRow]) -> list[Failure]:
    """All of them, in the order they were asked."""
    failed = [(row, row.verdict) for row in rows if row.verdict and not row.verdict.adheres]
    return [Failure(number, row, verdict) for number, (row, verdict) in enumerate(failed, 1)]


def _counted(pairs: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Class -> where -> how often the pair appears."""
    counts: dict[str, Counter[str]] = {}
    for cls, where in pairs:
        counts.setdefault(cls, Counter())[where] += 1
    return in_order(counts)


def pieces(text: str, violations: Sequence[Violation]) -> Iterator[Piece]:
    """The text cut where a violation starts or ends, with an empty piece for each violation without text.

    >>> [(p.text, p.numbers) for p in pieces("abcd", [Violation("", "A", "bcd", 1, 4), Violation("", "B", "cd", 2, 4)])]
    [('a', ()), ('b', (1,)), ('cd', (1, 2))]
    """
    starts: dict[int, list[int]] = {}
    for number, violation in enumerate(violations, 1):
        starts.setdefault(violation.start, []).append(number)
    edges = {0, len(text), *starts, *(violation.end for violation in violations)}
    within: list[int] = []
    for start, end in pairwise([*sorted(edges), len(text)]):
        within = [number for number in within if violations[number - 1].end > start]
        for number in starts.get(start, ()):
            violation = violations[number - 1]
            if violation.start == violation.end:
                yield Piece("", (number,), label(violation), violation.found)
            else:
                within.append(number)
        if end > start:
            labels = "; ".join(dict.fromkeys(label(violations[number - 1]) for number in within))
            yield Piece(text[start:end], tuple(within), labels)


def label(violation: Violation) -> str:
    return f"{violation.cls} in {violation.section or 'the whole answer'}"


def setting(value: Any) -> str:
    """A setting's value: a text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def cut(text: str, length: int = SHOWN_FOUND) -> str:
    """Its beginning in one line.

    >>> cut("one\\n two three", 7)
    'one two…'
    """
    line = " ".join(text[: 2 * length].split())
    return line if len(line) <= length and len(text) <= 2 * length else f"{line[:length].rstrip()}…"


def _hash(script: str) -> str:
    """The script's hash as a content security policy states it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
