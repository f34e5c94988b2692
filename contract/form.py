"""How an answer's text looks: the sections in order, their headings and the separator between them."""

from __future__ import annotations

from dataclasses import dataclass

from contract.kinds import Kind


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    kind: Kind


@dataclass(frozen=True)
class Form:
    """The part of a contract that writer and reader share."""

    heading: str
    separator: str
    sections: tuple[Section, ...]

    def head(self, section: Section) -> str:
        """The heading without the white space between it and an inline body."""
        return self.heading.format(title=section.title).rstrip(" ")

    def gap(self, section: Section) -> str:
        """The white space between a section's head and its body."""
        return "\n" if section.kind.block else self.heading[len(self.heading.rstrip(" ")) :]
