"""Judged answers at several temperatures, asked several times -> a row for each temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.stats.intervals import PassK, Rate, clustered_rate, pass_k

if TYPE_CHECKING:
    from eval.judge.answer_row import Judged


@dataclass(frozen=True)
class Rung:
    """All answers at one temperature, every repeat of every request; attempted = judged + failed."""

    temperature: float
    repeats: int
    attempted: int
    judged: int
    failed: int
    adherence: Rate  # over all repeats; its interval is clustered by concept
    pass_k: tuple[PassK, ...]  # k = 1 to `repeats`; none when each request was asked once

    def __str__(self) -> str:
        last = self.pass_k[-1] if self.pass_k else None
        all_k = f"  pass^{last.k} {100 * last.share:.1f} %" if last and last.share is not None else ""
        lost = f"  {self.failed} failed" if self.failed else ""
        return f"{self.adherence}{all_k}{lost}"


def ladder(rows: Sequence[Judged], repeats: int, seed: int = 0) -> tuple[Rung, ...]:
    """A rung a temperature, in the order they were asked."""
    return tuple(
        _rung(degree, [row for row in rows if row.temperature == degree], repeats, seed)
        for degree in dict.fromkeys(row.temperature for row in rows)
    )


def _rung(temperature: float, rows: Sequence[Judged], repeats: int, seed: int) -> Rung:
    judged = [row for row in rows if row.verdict]
    hits = [row.verdict.strict for row in judged if row.verdict]
    concepts = [row.example.concept for row in judged]
    ids = [row.example.id for row in judged]
    passes = tuple(pass_k(hits, ids, k, concepts, seed) for k in range(1, repeats + 1)) if repeats > 1 else ()
    rate = clustered_rate(hits, concepts, seed)
    return Rung(temperature, repeats, len(rows), len(judged), len(rows) - len(judged), rate, passes)
