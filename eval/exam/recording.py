"""The answers of a run, a JSON line each, synced as they come, so that a killed run resumes.

with open_recording(Path("report.answers.jsonl")) as recording:
    recording.answers.get(key)              # an answer of an earlier run
    recording.append([(key, "row-1", answer)])  # on the disk when it returns; errors are not kept

An answer is found by a sha256 over all that it depends on (`answer_key`), so an answer of other weights, another
template, other options or another request is never used instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.answers import Answer, Request
from plumbing.jsonl import LineFile, open_lines


def answer_key(identity: str, options: Mapping[str, Any], request: Request) -> str:
    """`identity`: of the model and what serves it.  `options`: all that are sent, temperature and seed among them."""
    parts = {
        "identity": identity, "messages": list(request.messages), "options": dict(options),
        "condition": request.condition, "repeat": request.repeat,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()  # ASCII: any text has one spelling


@dataclass
class Recording:
    """Answers by key, and the file that holds them."""

    lines: LineFile
    answers: dict[str, Answer]
    added: list[str] = field(default_factory=list)  # keys of this run

    @property
    def notes(self) -> list[str]:
        return self.lines.notes

    def append(self, rows: Sequence[tuple[str, str, Answer]]) -> None:
        """Write answers, each with its key and its row's id, and wait once until the disk has them."""
        assert not any(answer.error_kind for _, _, answer in rows), "errors are asked again, never kept"
        self.lines.append({"key": key, "id": name} | _values(answer) for key, name, answer in rows)
        self.answers.update({key: answer for key, _, answer in rows})
        self.added.extend(key for key, _, _ in rows)

    def withdraw(self) -> None:
        """Declare this run's answers void: they may be another model's."""
        if self.added:
            self.lines.append([{"void": self.added}])
            for key in self.added:
                self.answers.pop(key, None)
            self.added = []


@contextmanager
def open_recording(path: Path) -> Iterator[Recording]:
    """The recording at `path`, created if missing.  Raises UserError when another run has it open or it is another file."""
    answers: dict[str, Answer] = {}
    with open_lines(path, b'{"key": "', lambda line: _keep(answers, line), "answer of a run") as lines:
        yield Recording(lines, answers)


def _values(answer: Answer) -> dict[str, Any]:
    values = asdict(answer)
    del values["error_kind"], values["error"]
    return values


def _keep(answers: dict[str, Answer], line: bytes) -> bool:
    """Add the line's answer, or remove void ones; returns whether it is a valid line.  Of two answers the later counts."""
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
