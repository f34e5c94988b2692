"""One request with its answer: example, text, verdict on the form, and content."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from contract.contract import Contract
from contract.example import Example
from eval.judge.content import Content, judge_content
from eval.judge.verdict import Verdict
from eval.stats.intervals import Rate, wilson
from eval.stats.paired import PairedAnswer
from models.answers import Answer


@dataclass(frozen=True)
class AnswerRow:
    """`verdict` is None when no answer came; `content` is None until `with_content` has judged it."""

    example: Example
    answer: Answer
    verdict: Verdict | None
    temperature: float = 0.0
    repeat: int = 0
    content: Content | None = None

    @property
    def paired(self) -> PairedAnswer:
        """What a paired comparison needs of it, by the strict reading."""
        return PairedAnswer(self.example.request, self.example.concept, self.verdict.strict if self.verdict else None)

    def row(self) -> dict[str, Any]:
        """A line of answers.jsonl; `--replay` reads it back."""
        example = {key: getattr(self.example, key) for key in ("id", "concept", "category", "request")}
        verdict = dataclasses.asdict(self.verdict) | {"adheres": self.verdict.adheres} if self.verdict else {}
        verdict.pop("reading", None)  # reading the text again gives it
        answer = dataclasses.asdict(self.answer) | {"seconds": round(self.answer.seconds, 3)}
        content = {"content": dataclasses.asdict(self.content)} if self.content else {}
        return example | {"temperature": self.temperature, "repeat": self.repeat} | answer | verdict | content


def with_content(contract: Contract, rows: Sequence[AnswerRow]) -> list[AnswerRow]:
    """The same rows, with the content of each judged answer."""
    return [dataclasses.replace(row, content=_content(contract, row)) for row in rows]


def _content(contract: Contract, row: AnswerRow) -> Content | None:
    if row.verdict is None:
        return None
    return judge_content(contract, row.example, row.answer.text, row.verdict.reading.record, row.verdict.named)


def plain_rate(hits: Sequence[bool], concepts: Sequence[str] = ()) -> Rate:
    """The rate with Wilson's interval, which takes each answer as independent, whatever its concept."""
    return wilson(sum(hits), len(hits))


def headline(
    rows: Sequence[AnswerRow], rate: Callable[[Sequence[bool], Sequence[str]], Rate] = plain_rate
) -> dict[str, Rate]:
    """adherence (strict), loose, lenient and named: the rates over the answers that came, by `rate(hits, concepts)`."""
    judged = [(row.example.concept, row.verdict) for row in rows if row.verdict]
    concepts = [concept for concept, _ in judged]
    named = [(concept, verdict.named) for concept, verdict in judged if verdict.named is not None]
    return {
        "adherence": rate([verdict.strict for _, verdict in judged], concepts),
        "loose": rate([verdict.loose for _, verdict in judged], concepts),
        "lenient": rate([verdict.lenient for _, verdict in judged], concepts),
        "named": rate([hit for _, hit in named], [concept for concept, _ in named]),
    }
