"""JSONL files: reads each line or its fault; keeps a journal that a killed process leaves readable.

with open_lines(path, b'{"key": "', take, "answer of a run") as lines:   # `take` was given every line in the file
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

SHOWN_FAULTS = 10


def read_lines(path: Path) -> Iterator[tuple[int, Any, str]]:
    """Number, value and fault ("" for none) of each line.  Raises UserError when the file is not UTF-8 text."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines would cut texts at U+2028 and its like
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8") from None
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()
            yield number, value, ""
        except UnicodeEncodeError:
            yield number, None, "holds half of a surrogate pair, which is not text"
        except (ValueError, RecursionError) as error:
            yield number, None, f"not JSON: {error}"


def first_faults(faults: list[str]) -> list[str]:
    """The first faults, and how many more there are."""
    more = len(faults) - SHOWN_FAULTS
    return [*faults[:SHOWN_FAULTS], *([f"and {more} more"] if more > 0 else [])]


@dataclass
class LineFile:
    """An open journal; `notes` are lines for the user about what was wrong in the file."""

    path: Path
    file: BinaryIO
    notes: list[str] = field(default_factory=list)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the rows and wait once until the disk has them."""
        for row in rows:
            self.file.write((json.dumps(row) + "\n").encode())  # ASCII: half of a surrogate pair is not a fault here
        self.file.flush()
        os.fsync(self.file.fileno())


@contextmanager
def open_lines(path: Path, start: bytes, take: Callable[[bytes], bool], what: str) -> Iterator[LineFile]:
    """The journal at `path`, made if it is not there; `take` gets each line and returns whether it is one of ours.

    `start` is what the first line begins with, `what` the name of a line.  Raises UserError when another process
    writes the file, or when it holds nothing of ours: then it is not touched.
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
    torn = lines.pop()  # what follows the last line break: nothing, or a line that was not written to its end
    ours = [take(line) for line in lines]
    if not (any(ours) if lines else torn[: len(start)] == start[: len(torn)]):
        raise UserError(f"{found.path}: holds no {what}; move it away, or name another --out")
    if not all(ours):
        unread = ours.count(False)
        found.notes.append(f"{found.path}: lines that cannot be read: {unread}; what they held is asked again")
    if torn:
        found.file.truncate(sum(len(line) + 1 for line in lines))
        found.notes.append(f"{found.path}: the last line was cut short; what it held is asked again")
