"""Judged answers at several temperatures, each asked several times -> the rates at each temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.judge.answer_row import AnswerRow
from eval.stats.intervals import PassK, Rate, clustered_rate, pass_k


@dataclass(frozen=True)
class TemperatureRates:
    """All answers at one temperature, every repeat of every request; attempted = judged + failed."""

    temperature: float
    repeats: int
    attempted: int
    judged: int
    failed: int
    adherence: Rate  # over all repeats; its interval is clustered by concept
    pass_k: tuple[PassK, ...]  # k = 1 to `repeats`; empty when each request was asked once

    def __str__(self) -> str:
        last = self.pass_k[-1] if self.pass_k else None
        all_k = f"  pass^{last.k} {100 * last.share:.1f} %" if last and last.share is not None else ""
        lost = f"  {self.failed} failed" if self.failed else ""
        return f"{self.adherence}{all_k}{lost}"


def rates_by_temperature(rows: Sequence[AnswerRow], repeats: int) -> tuple[TemperatureRates, ...]:
    """The rates at each temperature, in the order they were asked."""
    return tuple(
        _rates([row for row in rows if row.temperature == temperature], repeats)
        for temperature in dict.fromkeys(row.temperature for row in rows)
    )


def _rates(rows: Sequence[AnswerRow], repeats: int) -> TemperatureRates:
    judged = [(row.verdict.strict, row.example) for row in rows if row.verdict]
    hits, concepts = [hit for hit, _ in judged], [example.concept for _, example in judged]
    ids = [example.id for _, example in judged]
    passes = tuple(pass_k(hits, ids, k, concepts) for k in range(1, repeats + 1)) if repeats > 1 else ()
    lost = len(rows) - len(judged)
    return TemperatureRates(
        rows[0].temperature, repeats, len(rows), len(judged), lost, clustered_rate(hits, concepts), passes
    )
