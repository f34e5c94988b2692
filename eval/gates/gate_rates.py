"""Judged answers -> the Figures that a gate checks; every interval resamples whole concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from contract.contract import Contract
from contract.example import Example
from eval.gates.gate import Figures, Known
from eval.judge.answer_row import AnswerRow, headline
from eval.judge.verdict import CLASSES, READINGS, Verdict
from eval.report.summarise import is_sound
from eval.stats.intervals import Rate, clustered_rate


def known_names(contract: Contract, examples: Sequence[Example]) -> Known:
    """The names that a gate may bound, by table."""
    return {
        "adherence": READINGS,
        "sections": [section.name for section in contract.sections],
        "categories": sorted({example.category for example in examples}),
        "classes": CLASSES,
    }


def gate_rates(contract: Contract, rows: Sequence[AnswerRow]) -> Figures:
    """The rates over the answers that came."""
    judged = [(row.example, row.verdict) for row in rows if row.verdict]
    names = known_names(contract, [row.example for row in rows])

    def rate(counts: Callable[[Verdict], bool], category: str | None = None) -> Rate:
        of = [(example, verdict) for example, verdict in judged if category in (None, example.category)]
        return clustered_rate([counts(verdict) for _, verdict in of], [example.concept for example, _ in of])

    return Figures(
        adherence={name: rate(lambda v, name=name: getattr(v, name)) for name in READINGS},
        named=headline(rows, clustered_rate)["named"],
        sections={name: rate(lambda v, name=name: is_sound(v, name)) for name in names["sections"]},
        categories={name: rate(lambda v: v.strict, name) for name in names["categories"]},
        classes={name: rate(lambda v, name=name: any(f.cls == name for f in v.violations)) for name in CLASSES},
        attempted=len(rows),
        failed=len(rows) - len(judged),
    )
