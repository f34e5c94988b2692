"""A file of JSON lines, appended and synced as they come, that a killed process leaves readable.

with open_lines(path, b'{"key": "', take, "answer of a run") as lines:   # `take` was given every line that is there
    lines.append([{"key": "a", "text": "..."}])                          # on the disk when it returns
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from plumbing.errors import UserError


@dataclass
class LineFile:
    """`notes` are the lines to tell the user about what was found in the file."""

    path: Path
    file: BinaryIO
    notes: list[str] = field(default_factory=list)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the rows and wait once until the disk has them."""
        for row in rows:
            self.file.write((json.dumps(row) + "\n").encode())  # ASCII: half of a surrogate pair is no fault here
        self.file.flush()
        os.fsync(self.file.fileno())


@contextmanager
def open_lines(path: Path, start: bytes, take: Callable[[bytes], bool], what: str) -> Iterator[LineFile]:
    """The file at `path`, made if it is not there; `take` says of each line whether it is one of ours.

    `start` is what the first line begins with, `what` a line is called.  Raises UserError when another process writes
    the file, or it holds nothing of ours: then it is not touched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _lock(file, path)
        found = LineFile(path, file)
        _read(found, start, take, what)
        yield found


def _lock(file: BinaryIO, path: Path) -> None:
    """One process at a time; the lock ends with the process, however it ends.  Windows has no flock: no lock there."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path}: another run is writing it; wait for its end, or name another --out") from None


def _read(found: LineFile, start: bytes, take: Callable[[bytes], bool], what: str) -> None:
    found.file.seek(0)
    lines = found.file.read().split(b"\n")
    torn = lines.pop()  # what follows the last line break: nothing, or a line whose writing was cut short
    read = [take(line) for line in lines]
    if not (any(read) if lines else torn[: len(start)] == start[: len(torn)]):
        raise UserError(f"{found.path}: holds no {what}; move it away, or name another --out")
    if not all(read):
        found.notes.append(
            f"{found.path}: lines that cannot be read: {read.count(False)}; what they held is asked again"
        )
    if torn:
        found.file.truncate(sum(len(line) + 1 for line in lines))
        found.notes.append(f"{found.path}: the last line was cut short; what it held is asked again")
