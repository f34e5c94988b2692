"""Request -> Answer: the interface between the judge and every backend, which is one callable, `Ask`.

A request without an answer is not a bad answer: it has an `error`, is counted separately and is never judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.base import Message
from plumbing.errors import UserError, faults_error

REPEATED = "repeat"  # done_reason of an answer that the server broke off because the model repeated itself


class ReplacedError(UserError):
    """The model was replaced during the measurement."""


@dataclass(frozen=True)
class Request:
    id: str
    messages: tuple[Message, ...]
    options: dict[str, Any] = field(default_factory=dict)  # temperature, seed...; they override the backend's `options`
    condition: str = "served"  # how the prompt describes the form: eval/exam/conditions.py
    repeat: int = 0  # the same request asked for the second time is 1


@dataclass(frozen=True)
class Answer:
    text: str
    done_reason: str = "stop"  # stop, length, or REPEATED; "" when there is an error
    prompt_tokens: int | None = None  # begin-of-sequence token included
    answer_tokens: int | None = None
    seconds: float = 0.0
    waited: float | None = None  # how many of these in the server's queue; None where it is unknown
    error_kind: str = ""  # transport (no answer), server (it answered with an error), missing (not in the recording)
    error: str = ""


Ask = Callable[[Request], Answer]


@dataclass(frozen=True)
class Backend:
    kind: str  # ollama, llama_cpp, replay
    model: str  # the model's name for people
    ask: Ask
    pins: Callable[[], dict[str, Any]]  # exactly what was measured; called at the end of the run
    identity: str = ""  # everything in the backend that an answer depends on; "": its answers are recorded already
    options: Mapping[str, Any] = field(default_factory=dict)  # sent with every request, unless the request has its own


def spelled(text: str) -> str:
    """`text` with each half of a surrogate pair, which no file can hold, replaced by U+FFFD."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\ufffd", text)


def failed(kind: str, message: str, seconds: float = 0.0) -> Answer:
    """An Answer that holds only the reason why there is none."""
    return Answer("", "", seconds=seconds, error_kind=kind, error=message)


@contextmanager
def open_replay(path: Path) -> Iterator[Backend]:
    """Recorded answers: a JSONL file of {id, text, done_reason}, for example a report's answers.jsonl.

    A line without `temperature` or `repeat` has 0.  Raises UserError with all faults of the file.
    A request that was not recorded is an error, not an empty answer.
    """
    recorded = _read_recording(path)

    def ask(request: Request) -> Answer:
        key = (request.id, request.options.get("temperature", 0.0), request.repeat)
        return recorded.get(key) or failed("missing", f"{path}: no answer with the id {_spell(*key)}")

    yield Backend("replay", path.name, ask, lambda: {"recording": path.name, "recorded": len(recorded)})


Key = tuple[str, float, int]  # id, temperature, repeat


def _spell(name: str, temperature: float, repeat: int) -> str:
    return f"'{name}'" + (f" (temperature {temperature:g}, repeat {repeat})" if temperature or repeat else "")


def _read_recording(path: Path) -> dict[Key, Answer]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines would cut texts at U+2028
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a report folder's answers.jsonl can be replayed") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected lines of {{id, text, done_reason}}") from None
    recorded: dict[Key, Answer] = {}
    faults = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            key = (row["id"], float(row.get("temperature", 0)), int(row.get("repeat", 0)))
            answer = _recorded_answer(row)
        except (ValueError, KeyError, TypeError, AttributeError):
            faults.append(f"line {number}: expected {{id, text, done_reason}}, found {line[:60]!r}")
            continue
        if key in recorded:
            faults.append(f"line {number}: a second answer for {_spell(*key)}")
        recorded[key] = answer
    if faults:
        raise faults_error(str(path), faults[:10])
    return recorded


def _recorded_answer(row: dict[str, Any]) -> Answer:
    if row.get("error_kind"):
        return failed(row["error_kind"], row.get("error", ""))
    if not isinstance(row["text"], str):
        raise TypeError
    tokens = (row.get("prompt_tokens"), row.get("answer_tokens"))
    times = {"seconds": row.get("seconds", 0.0), "waited": row.get("waited")}
    return Answer(spelled(row["text"]), row.get("done_reason", "stop"), *tokens, **times)
