"""The journal of a teacher's run: one JSON line a finished row, appended and synced, so that a killed run goes on.

with open_journal(Path("dataset.teacher.jsonl")) as journal:
    journal.entries["uremia/0", fingerprint]     # what earlier runs finished
    journal.append(entry)                        # on the disk when it returns
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from contract.contract import Record
from contract.errors import UserError

_FIRST = b'{"id": "'  # what every line begins with


@dataclass(frozen=True)
class Rejection:
    """Why an answer was refused: the reason of `checks.REASONS` that counts, and what the model is told."""

    reason: str
    found: str


@dataclass(frozen=True)
class Entry:
    """A finished row: accepted with its record, or failed after `attempts` answers with none."""

    id: str
    fingerprint: str  # of all that the answer depends on; another one is another question
    record: Record | None
    rejections: tuple[Rejection, ...]  # one an answer that was refused, in order
    answer: str  # of a failed row the last answer, shortened
    attempts: int  # how many answers the run allowed a row


@dataclass
class Journal:
    """Finished rows by id and fingerprint.  `notes` are the lines to tell the user about what was found in the file."""

    path: Path
    file: BinaryIO
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def append(self, entry: Entry) -> None:
        """Write the entry and wait until the disk has it."""
        self.file.write((json.dumps(asdict(entry)) + "\n").encode())  # ASCII: half of a surrogate pair is no fault here
        self.file.flush()
        self.entries[entry.id, entry.fingerprint] = entry
        os.fsync(self.file.fileno())


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The journal at `path`, made if it is not there.  Raises UserError when another process writes it, or others did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _lock(file, path)
        journal = Journal(path, file)
        _read(journal)
        yield journal


def _lock(file: BinaryIO, path: Path) -> None:
    """One process at a time; the lock ends with the process, however it ends.  Windows has no flock: no lock there."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another run is writing it; wait for its end, or name another folder") from None


def _read(journal: Journal) -> None:
    journal.file.seek(0)
    lines = journal.file.read().split(b"\n")
    torn = lines.pop()  # what follows the last line break: nothing, or a line whose writing was cut short
    read = [_entry(line) for line in lines]
    if (lines and not any(read)) or (not lines and not _FIRST.startswith(torn[: len(_FIRST)])):
        raise UserError(f"{journal.path}: holds no line of a teacher's journal; move it away")
    journal.entries = {(entry.id, entry.fingerprint): entry for entry in read if entry}
    damaged = read.count(None)
    if damaged:
        journal.notes.append(f"{journal.path}: lines that cannot be read: {damaged}; their rows are asked again")
    if torn:
        journal.file.truncate(sum(len(line) + 1 for line in lines))
        journal.notes.append(f"{journal.path}: the last line was cut short; its row is asked again")


def _entry(line: bytes) -> Entry | None:
    try:
        row: dict[str, Any] = json.loads(line)
        rejections = tuple(Rejection(**rejection) for rejection in row.pop("rejections"))
        entry = Entry(rejections=rejections, **row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    right = isinstance(entry.id, str) and isinstance(entry.fingerprint, str) and isinstance(entry.attempts, int)
    return entry if right and isinstance(entry.record, dict | None) and (entry.record or entry.rejections) else None
