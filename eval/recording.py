"""The answers of a run, one JSON line each, appended and synced as they come: a killed run goes on where it stood.

with open_recording(Path("report.answers.jsonl")) as recording:
    recording.answers.get(key)              # what an earlier run was answered
    recording.append(key, "row-1", answer)  # on the disk when it returns; errors are not kept

An answer is found again by a sha256 over all that it depends on (`answer_key`), so one of other weights, another
template, other options or another request is never taken for it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from contract.errors import UserError
from eval.backends import Answer, Request

START = b'{"key": "'  # of every line but those that declare others void


def answer_key(identity: str, options: Mapping[str, Any], request: Request) -> str:
    """`identity`: of the model and what serves it.  `options`: all that are sent, temperature and seed among them."""
    parts = {
        "identity": identity, "messages": list(request.messages), "options": dict(options),
        "condition": request.condition, "repeat": request.repeat,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()  # ASCII: any text has one spelling


@dataclass
class Recording:
    """Answers by key.  `notes` are the lines to tell the user about what was found in the file."""

    path: Path
    file: BinaryIO
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)  # keys of this run

    def append(self, key: str, name: str, answer: Answer) -> None:
        """Write an answer that came and wait until the disk has it."""
        self.append_all([(key, name, answer)])

    def append_all(self, rows: Sequence[tuple[str, str, Answer]]) -> None:
        """Write answers, each with its key and its row's id, and wait once until the disk has them."""
        for key, name, answer in rows:
            assert not answer.error_kind, "an error is asked again, never kept"
            values = asdict(answer)
            del values["error_kind"], values["error"]
            self._write({"key": key, "id": name} | values)
            self.answers[key] = answer
            self.added.append(key)
        self._sync()

    def withdraw(self) -> None:
        """Declare void what this run wrote: whose answers they are is not certain."""
        if self.added:
            self._write({"void": self.added})
            self._sync()
            for key in self.added:
                self.answers.pop(key, None)
            self.added = []

    def _write(self, row: dict[str, Any]) -> None:
        self.file.write((json.dumps(row) + "\n").encode())

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())


@contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """The recording at `path`, made if it is not there.  Raises UserError when another run writes it, or others did."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _lock(file, path)
        recording = Recording(path, file)
        _read(recording)
        yield recording


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


def _read(recording: Recording) -> None:
    recording.file.seek(0)
    lines = recording.file.read().split(b"\n")
    torn = lines.pop()  # what follows the last line break: nothing, or a line whose writing was cut short
    read = [_keep(recording.answers, line) for line in lines]
    ours = any(read) if lines else torn[: len(START)] == START[: len(torn)]
    if not ours:
        raise UserError(f"{recording.path}: holds no answer of a run; move it away, or name another --out")
    if not all(read):
        recording.notes.append(f"{recording.path}: lines that cannot be read: {read.count(False)}; asked again")
    if torn:
        recording.file.truncate(sum(len(line) + 1 for line in lines))
        recording.notes.append(f"{recording.path}: the last line was cut short; its request is asked again")


def _keep(answers: dict[str, Answer], line: bytes) -> bool:
    """Take the line's answer in, or out again; whether it is a line of ours.  Of two answers the later counts."""
    try:
        row: dict[str, Any] = json.loads(line)
        if "void" in row:
            for key in row["void"]:
                answers.pop(key, None)
            return True
        key, name = row.pop("key"), row.pop("id")
        answer = Answer(**row)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    if not all(isinstance(text, str) for text in (key, name, answer.text, answer.done_reason)):
        return False
    answers[key] = answer
    return True
