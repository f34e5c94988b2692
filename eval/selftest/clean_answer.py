"""A clean example cut into its sections, from which faulty answers are put together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from contract.contract import Contract
from contract.example import Example
from contract.form import Section
from contract.kinds import Prose
from eval.judge.content_faults import SENTENCES_FROM
from models.answers import Answer
from plumbing.toml_file import read_toml

TEXTS = read_toml(Path(__file__).with_name("faults.toml"))
Made = Iterator[tuple[str, str | Answer]]  # what was done, and the faulty answer


class Clean:
    """A clean answer, section by section."""

    def __init__(self, contract: Contract, example: Example) -> None:
        self.contract, self.example, self.text = contract, example, example.response
        self.sections = contract.sections
        self.bodies = [section.kind.write(example.record[section.name]) for section in self.sections]
        self.pieces = [self.piece(section, body) for section, body in zip(self.sections, self.bodies, strict=True)]
        self.chance = random.Random(example.id)

    def piece(self, section: Section, body: str) -> str:
        return self.contract.head(section) + self.contract.gap(section) + body

    def join(self, pieces: list[str]) -> str:
        return self.contract.separator.join(pieces)

    def instead(self, number: int, piece: str) -> str:
        """The answer with one section replaced by another text."""
        return self.join([*self.pieces[:number], piece, *self.pieces[number + 1 :]])

    def body(self, number: int, body: str) -> str:
        return self.instead(number, self.piece(self.sections[number], body))

    def of(self, kind: type) -> list[tuple[int, Section, str]]:
        """Place, section and body of each section of the kind."""
        rows = enumerate(zip(self.sections, self.bodies, strict=True))
        return [(number, section, body) for number, (section, body) in rows if isinstance(section.kind, kind)]

    def sentences(self) -> list[tuple[int, Section, str]]:
        return [row for row in self.of(Prose) if row[1].kind.min_words >= SENTENCES_FROM]
