"""The result of reading a response: the record, and the rules that the text breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # section name -> value, of the type that the section's kind takes


@dataclass(frozen=True)
class Violation:
    """One broken rule: the section's name ("" for the whole answer), the failure class, the text that breaks it.

    That text is answer[start:end].  For something that is missing, start == end is the place where it was expected,
    and `found` is what was expected.
    """

    section: str
    cls: str
    found: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """The record as far as it can be read, and every broken rule in the order of the text."""

    record: Record
    violations: tuple[Violation, ...]
    spans: dict[str, tuple[int, int]]  # section name -> start and end of its body in the text

    @property
    def adheres(self) -> bool:
        return not self.violations
