"""Other models' judged answers to the same requests -> their rates, paired with the measured model.

The baselines of eval/exam/baselines.py are among them: a model must beat these before its figures mean anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.contract import Contract
from contract.example import Example
from eval.exam.baselines import baselines
from eval.judge.answer_row import AnswerRow, headline, with_content
from eval.judge.content import ContentSummary, summarise_content
from eval.judge.verdict import judge
from eval.stats.intervals import Rate
from eval.stats.paired import Paired, pair
from models.answers import Answer


@dataclass(frozen=True)
class Comparison:
    """Another model beside the measured one; `paired` is the measured model against it, by the strict reading."""

    name: str
    pretended: bool  # a baseline, not a model
    judged: int
    failed: int
    adherence: Rate
    loose: Rate
    lenient: Rate
    named: Rate
    content: ContentSummary
    paired: Paired | None


def compare_models(
    name: str, rows: Sequence[AnswerRow], measured: Sequence[AnswerRow], pretended: bool = False
) -> Comparison:
    """The rates of `rows`, whose content has been judged, and their pairing with the measured model's rows."""
    came = sum(row.verdict is not None for row in rows)
    paired = pair({row.example.id: row.paired for row in measured}, {row.example.id: row.paired for row in rows})
    content = summarise_content([row.content for row in rows if row.content])
    return Comparison(name, pretended, came, len(rows) - came, **headline(rows), content=content, paired=paired)


def judge_baselines(contract: Contract, examples: Sequence[Example]) -> Mapping[str, list[AnswerRow]]:
    """The baselines' judged answers, by name."""
    found = {}
    for name, texts in baselines(contract, examples).items():
        answers = [Answer(text) for text in texts]
        rows = [AnswerRow(e, a, judge(contract, e, a)) for e, a in zip(examples, answers, strict=True)]
        found[name] = with_content(contract, rows)
    return found
