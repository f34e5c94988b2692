"""Each step's judged answers -> Attribution: what changed since the step before it, and the table.

A step is compared with the last one before it that was not left out.
adherence changed   the 95 % interval of the paired difference, whole concepts drawn (eval/stats/paired.py), excludes 0
answers changed     at least one text differs; only requests that both steps answered are compared
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from typing import Any

from eval.attribute.agreement import Agreement
from eval.judge.answer_row import AnswerRow, headline
from eval.stats.intervals import Rate
from eval.stats.paired import Paired, pair

HEAD = ("step", "adherence", "term named", "answers as before", "difference to the step before", "whole concepts drawn")


@dataclass(frozen=True)
class Answered:
    """One step's answers and which model gave them."""

    step: str
    rows: Sequence[AnswerRow]
    pins: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One step compared with the one before it.  For the first step `before` and all fields after it are empty."""

    step: str
    judged: int
    failed: int  # no answer came
    adherence: Rate
    named: Rate
    pins: dict[str, Any]
    before: str
    compared: int  # requests that both steps answered
    differing: tuple[str, ...]  # ids of those whose two answers differ
    paired: Paired | None

    @property
    def adherence_changed(self) -> bool:
        return self.paired is not None and not self.paired.clustered_low <= 0 <= self.paired.clustered_high


@dataclass(frozen=True)
class Attribution:
    requests: int
    options: dict[str, Any]  # the same in every step
    steps: tuple[Measured, ...]
    left_out: dict[str, str]  # step or comparison of logits -> reason
    agreements: tuple[Agreement, ...]
    complete: bool  # no comparison of logits was left out
    weights: dict[str, str]  # GGUF of model/ -> its sha256
    notes: tuple[str, ...]

    @property
    def export(self) -> str:
        """faithful: every comparison of logits keeps its bound.  unfaithful: one misses it.  Else not measured."""
        if any(agreement.faults for agreement in self.agreements):
            return "unfaithful"
        return "faithful" if self.complete else "not measured"

    def to_dict(self) -> dict[str, Any]:
        steps = [asdict(step) | {"adherence_changed": step.adherence_changed} for step in self.steps]
        return asdict(self) | {"steps": steps, "verdict": verdict(self.steps), "export": self.export}


def measured(answered: Sequence[Answered]) -> tuple[Measured, ...]:
    """Every step, compared with the one before it, except the first."""
    return tuple(
        _measured(step, before) for step, before in zip(answered, [None, *answered[:-1]], strict=True)
    )  # fmt: skip


def _measured(step: Answered, before: Answered | None) -> Measured:
    rates, judged = headline(step.rows), sum(row.verdict is not None for row in step.rows)
    alone = Measured(
        step.step, judged, len(step.rows) - judged, rates["adherence"], rates["named"], dict(step.pins), "", 0, (), None
    )  # fmt: skip
    if before is None:
        return alone
    pairs = zip(step.rows, before.rows, strict=True)
    both = [(new, old) for new, old in pairs if new.verdict and old.verdict]
    differing = tuple(new.example.id for new, old in both if new.answer.text != old.answer.text)
    paired = pair(*({row.example.id: row.paired for row in rows} for rows in (step.rows, before.rows)))
    return replace(alone, before=before.step, compared=len(both), differing=differing, paired=paired)


def verdict(steps: Sequence[Measured]) -> list[str]:
    """Two lines: the steps that changed adherence, and those that changed answers."""
    pairs = [(step, step.paired) for step in steps if step.paired]
    moved = [f"{step.step} ({100 * (p.difference or 0):+.1f} points)" for step, p in pairs if step.adherence_changed]
    differing = [f"{step.step} ({len(step.differing)} of {step.compared})" for step in steps if step.differing]
    still = [paired for step, paired in pairs if not step.adherence_changed]
    named = [", ".join(moved)] * bool(moved) + [("at the other steps " * bool(moved)) + _not_shown(still)] * bool(still)
    return [f"adherence changed at: {'; '.join(named)}", f"answers changed at: {', '.join(differing) or 'no step'}"]


def _not_shown(still: Sequence[Paired]) -> str:
    """The smallest change that could have been found, at the step with the least power."""
    weakest = max(still, key=lambda paired: inf if paired.smallest is None else paired.smallest)
    least = "none" if weakest.smallest is None else f"{100 * weakest.smallest:.1f} points"
    return f"not shown; smallest difference that {weakest.n} requests could show: {least}"


def to_text(found: Attribution) -> str:
    """A Markdown table whose columns also line up on a terminal, and the lines below it."""
    options = ", ".join(f"{name} {value}" for name, value in found.options.items())
    lines = [
        *_table([HEAD, *(_cells(step) for step in found.steps)]),
        "",
        *(f"- {line}" for line in verdict(found.steps)),
        *(f"- {agreement}" for agreement in found.agreements),
        f"- export: {found.export}",
        *(f"- left out: {name}: {reason}" for name, reason in found.left_out.items()),
        *(f"- {note}" for note in found.notes),
        f"- {found.requests} requests, the same in every step, and sent alike: {options}",
    ]
    return "\n".join(lines) + "\n"


def _cells(step: Measured) -> tuple[str, ...]:
    adherence = str(step.adherence) + (f" (+{step.failed} failed)" if step.failed else "")
    if step.paired is None:
        return step.step, adherence, str(step.named), "-", "-", "-"
    paired = step.paired
    by_concept = f"{100 * paired.clustered_low:+.1f} to {100 * paired.clustered_high:+.1f}"
    equal = f"{step.compared - len(step.differing)} of {step.compared}"
    return step.step, adherence, str(step.named), equal, str(paired), by_concept


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
