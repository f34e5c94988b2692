"""The journal of a teacher's run: one line for each finished row, so that a killed run can resume."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contract.contract import Record
from plumbing.jsonl import LineFile, open_lines


@dataclass(frozen=True)
class Rejection:
    """Why an answer was refused: the reason of `checks.REASONS` that counts, and the text that the model gets."""

    reason: str
    found: str


@dataclass(frozen=True)
class Entry:
    """A finished row: accepted with its record, or failed after `attempts` answers with none."""

    id: str
    fingerprint: str  # of all that the answer depends on; if it changes, the row is asked again
    record: Record | None
    rejections: tuple[Rejection, ...]  # one for each refused answer, in order
    answer: str  # of a failed row the last answer, shortened
    attempts: int  # how many answers the run allowed for a row

    def to_json(self) -> str:
        """The line of a failed row in failed.jsonl."""
        rejections = [asdict(rejection) for rejection in self.rejections]
        return json.dumps({"id": self.id, "rejections": rejections, "answer": self.answer}, ensure_ascii=False)


@dataclass
class Journal:
    """Finished rows by id and fingerprint, and their file."""

    lines: LineFile
    entries: dict[tuple[str, str], Entry]

    def append(self, entry: Entry) -> None:
        """Write the entry and wait until it is on the disk."""
        self.entries[entry.id, entry.fingerprint] = entry  # first: a Ctrl-C while the disk writes finds it counted
        self.lines.append([asdict(entry)])


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The journal at `path`, created if missing.  Raises UserError if another process writes it, or if it is another file."""
    entries: dict[tuple[str, str], Entry] = {}

    def take(line: bytes) -> bool:
        entry = _entry(line)
        if entry:
            entries[entry.id, entry.fingerprint] = entry
        return entry is not None

    with open_lines(path, b'{"id": "', take, "line of a teacher's journal") as lines:
        yield Journal(lines, entries)


def _entry(line: bytes) -> Entry | None:
    try:
        row: dict[str, Any] = json.loads(line)
        rejections = tuple(Rejection(**rejection) for rejection in row.pop("rejections"))
        entry = Entry(rejections=rejections, **row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    right = isinstance(entry.id, str) and isinstance(entry.fingerprint, str) and isinstance(entry.attempts, int)
    return entry if right and isinstance(entry.record, dict | None) and (entry.record or entry.rejections) else None
