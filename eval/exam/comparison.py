"""Other models' judged answers to the same requests -> lines beside the measured model's, each paired with it.

Beside models stand the pretend ones of eval/exam/baselines.py: what a model must beat before its figures mean anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.contract import Contract
from contract.example import Example
from eval.exam.baselines import baselines
from eval.judge.answer_row import Judged, headline, with_content
from eval.judge.content import ContentSummary, summarise_content
from eval.judge.verdict import judge
from eval.stats.intervals import Rate
from eval.stats.paired import Paired, pair
from models.answers import Answer


@dataclass(frozen=True)
class Compared:
    """One line of the comparison; `paired` is the measured model against it, by the strict reading."""

    name: str
    pretended: bool  # a baseline, no model
    judged: int
    failed: int
    adherence: Rate
    loose: Rate
    lenient: Rate
    named: Rate
    content: ContentSummary
    paired: Paired | None


def compared(name: str, rows: Sequence[Judged], measured: Sequence[Judged], pretended: bool = False) -> Compared:
    """The line of `rows`, whose content has been judged, against the measured model's."""
    contents = [row.content for row in rows if row.content]
    came = sum(row.verdict is not None for row in rows)
    paired = pair({row.example.id: row.result for row in measured}, {row.example.id: row.result for row in rows})
    return Compared(
        name, pretended, came, len(rows) - came, **headline(rows), content=summarise_content(contents), paired=paired
    )


def pretended(contract: Contract, examples: Sequence[Example]) -> Mapping[str, list[Judged]]:
    """The baselines' judged answers, by name."""
    found = {}
    for name, texts in baselines(contract, examples).items():
        answers = [Answer(text) for text in texts]
        rows = [Judged(e, a, judge(contract, e, a)) for e, a in zip(examples, answers, strict=True)]
        found[name] = with_content(contract, rows)
    return found
