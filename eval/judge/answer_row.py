"""One request's fate: the example, what came, the verdict on its form and what it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contract.contract import Contract
from contract.example import Example
from eval.judge.content import Content, judge_content
from eval.judge.verdict import Verdict
from eval.stats.intervals import Rate, wilson
from eval.stats.paired import Result
from models.answers import Answer


@dataclass(frozen=True)
class Judged:
    """`verdict` is None on an answer that never came; `content` until `with_content` has looked at what was said."""

    example: Example
    answer: Answer
    verdict: Verdict | None
    temperature: float = 0.0
    repeat: int = 0
    content: Content | None = None

    @property
    def result(self) -> Result:
        """What a paired comparison reads of it, by the strict reading."""
        return Result(self.example.request, self.example.concept, self.verdict.strict if self.verdict else None)

    def row(self) -> dict[str, Any]:
        """A line of answers.jsonl; `--replay` reads it back."""
        example = {key: getattr(self.example, key) for key in ("id", "concept", "category", "request")}
        verdict = dataclasses.asdict(self.verdict) | {"adheres": self.verdict.adheres} if self.verdict else {}
        answer = dataclasses.asdict(self.answer) | {"seconds": round(self.answer.seconds, 3)}
        content = {"content": dataclasses.asdict(self.content)} if self.content else {}
        return example | {"temperature": self.temperature, "repeat": self.repeat} | answer | verdict | content


def with_content(contract: Contract, rows: Sequence[Judged]) -> list[Judged]:
    """The same rows, each judged answer's content beside its form."""
    return [dataclasses.replace(row, content=_content(contract, row)) for row in rows]


def _content(contract: Contract, row: Judged) -> Content | None:
    if row.verdict is None:
        return None
    record = contract.read(row.answer.text).record
    return judge_content(contract, row.example, row.answer.text, record, row.verdict.named)


def headline(rows: Sequence[Judged]) -> dict[str, Rate]:
    """adherence (strict), loose, lenient and named: the rates of the answers that came."""
    verdicts = [row.verdict for row in rows if row.verdict]
    named = [verdict.named for verdict in verdicts if verdict.named is not None]
    return {
        "adherence": wilson(sum(verdict.strict for verdict in verdicts), len(verdicts)),
        "loose": wilson(sum(verdict.loose for verdict in verdicts), len(verdicts)),
        "lenient": wilson(sum(verdict.lenient for verdict in verdicts), len(verdicts)),
        "named": wilson(sum(named), len(named)),
    }
