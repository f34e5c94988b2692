"""What reading a response yields: the record, and the rules that the text breaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]  # section name -> value, of the type that the section's kind takes


@dataclass(frozen=True)
class Violation:
    """One broken rule: the section's name ("" for the whole answer), the failure class, the text it was found in.

    That text is answer[start:end].  What is missing stands nowhere: there start == end is the place where it was
    expected, and `found` says what was.
    """

    section: str
    cls: str
    found: str
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """What a response says: the record as far as it can be read, and every rule it breaks, in the text's order."""

    record: Record
    violations: tuple[Violation, ...]
    spans: dict[str, tuple[int, int]]  # section name -> start and end of its body in the text

    @property
    def adheres(self) -> bool:
        return not self.violations
