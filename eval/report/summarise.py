"""Judged answers -> Report: the rates over the answers that came; the others are counted beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

from contract.contract import Contract
from contract.kinds import Choice
from eval.judge.answer_row import AnswerRow, headline, plain_rate
from eval.judge.content import ChoiceScore, choice_score, summarise_content
from eval.judge.content_faults import holds_marks
from eval.judge.verdict import CLASSES, Verdict
from eval.report.report import Report
from eval.stats.intervals import clustered_rate

T = TypeVar("T")


def summarise(contract: Contract, backend: str, model: str, rows: Sequence[AnswerRow], seconds: float) -> Report:
    """The figures of one model's rows, each request once."""
    judged = [(row, row.verdict) for row in rows if row.verdict]
    verdicts = [verdict for _, verdict in judged]
    errors = Counter(row.answer.error_kind for row in rows if not row.verdict)
    clustered = headline(rows, clustered_rate)
    categories = sorted({row.example.category for row in rows})
    return Report(
        backend, model, len(rows), len(judged), errors.total(), dict(sorted(errors.items())),
        **headline(rows),
        clustered={"strict": clustered.pop("adherence"), **clustered},
        content=summarise_content([row.content for row in rows if row.content]),
        choices=_choices(contract, judged),
        sections={s.name: plain_rate([is_sound(v, s.name) for v in verdicts]) for s in contract.sections},
        categories={name: plain_rate([v.adheres for row, v in judged if row.example.category == name]) for name in categories},
        primary=in_order(Counter(v.primary for v in verdicts if v.primary)),
        classes=in_order(Counter(cls for v in verdicts for cls in {violation.cls for violation in v.violations})),
        marked=tuple(row.example.id for row in rows if holds_marks(row.example.request)),
        seconds=round(seconds, 1),
    )  # fmt: skip


def _choices(contract: Contract, judged: Sequence[tuple[AnswerRow, Verdict]]) -> dict[str, ChoiceScore]:
    scores = {}
    for section in contract.sections:
        if isinstance(section.kind, Choice):
            expected = [row.example.record[section.name] for row, _ in judged]
            given = [verdict.reading.record.get(section.name) for _, verdict in judged]
            scores[section.name] = choice_score(expected, given, section.kind.options)
    return scores


def is_sound(verdict: Verdict, section: str) -> bool:
    """Whether the section is there and unbroken.  A fault of the whole answer counts only when no text is left of it."""
    nothing = {"EMPTY_ANSWER", "REPETITION"}
    return not any(v.section == section or (v.cls in nothing and not v.section) for v in verdict.violations)


def in_order(by_class: Mapping[str, T]) -> dict[str, T]:
    """The same values by failure class, in the order of CLASSES."""
    return {cls: by_class[cls] for cls in CLASSES if cls in by_class}
