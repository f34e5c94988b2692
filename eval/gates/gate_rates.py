"""Judged answers -> the Figures that a gate reads, each interval with whole concepts drawn."""

from __future__ import annotations

from collections.abc import Sequence

from contract.contract import Contract
from contract.example import Example
from eval.gates.gate import Figures, Known
from eval.judge.answer_row import Judged
from eval.judge.verdict import CLASSES, Verdict
from eval.report.report import READINGS, is_sound
from eval.stats.intervals import Rate, clustered_rate


def known(contract: Contract, examples: Sequence[Example]) -> Known:
    """What a gate may bound, by table."""
    return {
        "adherence": READINGS,
        "sections": [section.name for section in contract.sections],
        "categories": sorted({example.category for example in examples}),
        "classes": CLASSES,
    }


def figures(contract: Contract, rows: Sequence[Judged]) -> Figures:
    """Over the answers that came."""
    judged = [(row.example, row.verdict) for row in rows if row.verdict]
    names = known(contract, [row.example for row in rows])

    def rate(hits: Sequence[bool], of: Sequence[tuple[Example, Verdict]]) -> Rate:
        return clustered_rate(hits, [example.concept for example, _ in of])

    def of(category: str) -> list[tuple[Example, Verdict]]:
        return [(example, verdict) for example, verdict in judged if example.category == category]

    named = [(example, verdict) for example, verdict in judged if verdict.named is not None]
    return Figures(
        adherence={name: rate([getattr(v, name) for _, v in judged], judged) for name in READINGS},
        named=rate([bool(v.named) for _, v in named], named),
        sections={name: rate([is_sound(v, name) for _, v in judged], judged) for name in names["sections"]},
        categories={name: rate([v.strict for _, v in of(name)], of(name)) for name in names["categories"]},
        classes={name: rate([any(f.cls == name for f in v.violations) for _, v in judged], judged) for name in CLASSES},
        attempted=len(rows),
        failed=len(rows) - len(judged),
    )
