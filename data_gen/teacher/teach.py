"""Facts + composed rows -> the same rows with records that a model of an Ollama wrote (--teacher).

taught = teach(contract, drafts, "qwen2.5:7b", Path("artifacts/terminology/dataset.teacher.jsonl"))
taught.examples, taught.failed       # accepted rows and failed ones, both in the order of the drafts

Every answer is checked (checks.py).  A refused row is asked again with the reason.  Each finished row is in the journal
before the next one counts, so the same call resumes where a killed one stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.contract import Contract
from contract.example import Example
from data_gen.facts import Fact
from data_gen.teacher import prompt
from data_gen.teacher.checks import REASONS, read_answer, yardstick
from data_gen.teacher.journal import Entry, Journal, Rejection, open_journal
from data_gen.teacher.server import PAUSES, TOO_LONG, StoppedError, TeacherServer
from data_gen.teacher.tally import Tally, watching
from models.answers import REPEATED
from models.ollama_address import server_url
from models.ollama_server import TIMEOUT, NoAnswerError
from plumbing.errors import UserError
from plumbing.wording import shorten

_UNREADABLE = {REPEATED: "LOOPED", TOO_LONG: "PROMPT_TOO_LONG", "length": "CUT"}  # done_reason -> reason


@dataclass(frozen=True)
class Taught:
    examples: list[Example]  # in the order of the drafts
    failed: list[Entry]
    pins: dict[str, Any]  # the teacher: model, digest, ollama, prompt (its version), attempts, the options
    counts: dict[str, Any]  # rows, accepted, retried (accepted at a later attempt), failed, answers, reasons


@dataclass(frozen=True)
class Row:
    """A draft, its fact, and the sha256 of its question."""

    fact: Fact
    draft: Example
    fingerprint: str

    @property
    def key(self) -> tuple[str, str]:
        return self.draft.id, self.fingerprint


def teach(
    contract: Contract, drafts: Sequence[tuple[Fact, Example]], model: str, journal: Path, *, concurrency: int = 4,
    attempts: int = 3, url: str | None = None, timeout: float = TIMEOUT, pauses: tuple[float, ...] = PAUSES,
) -> Taught:  # fmt: skip
    """The drafts with records that the model wrote; `timeout` is for one answer of a server without other work.

    Raises UserError if there is no server or no model, if answers stop, or if no row was accepted.
    """
    if not prompt.taught_sections(contract):
        raise UserError(f"task '{contract.name}': all its sections are fixed or a choice, so there is nothing to teach")
    server = TeacherServer(server_url(url), timeout * concurrency, pauses, threading.Event())
    pins = server.pins(model)
    rows = [Row(fact, draft, _fingerprint(contract, fact, draft, pins["digest"])) for fact, draft in drafts]
    with open_journal(journal) as book:
        _drop_broken(book, contract, rows)
        unfinished = [row for row in rows if not _finished(book, row, attempts)]
        _print_notes(book, rows, len(unfinished))
        with _pausing(book, rows, attempts, server.stop):
            ask = functools.partial(_ask, contract, server, model, attempts)
            _ask_all(ask, unfinished, book, concurrency, f"teacher {model}", server.stop)
        taught = _taught(contract, rows, book, pins | {"attempts": attempts})
    if server.pins(model) != pins:
        raise UserError(f"'{model}' or its Ollama has changed since the start of the run; run again")
    print(summary(taught, len(unfinished)), file=sys.stderr)
    if not taught.examples and rows:
        reason = next(iter(taught.counts["reasons"]))
        raise UserError(
            f"teacher '{model}': none of {len(rows)} rows was accepted, most often for {reason} ({REASONS[reason]}); "
            f"the answers are in {journal}; try a larger model"
        )
    return taught


def summary(taught: Taught, asked: int) -> str:
    """One line for the end of a run."""
    counts = taught.counts
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts["reasons"].items())
    return (
        f"teacher {taught.pins['model']}: {counts['rows']} rows, {asked} of them asked now: {counts['accepted']} accepted "
        f"({counts['retried']} after a refused answer), {counts['failed']} failed{f' ({reasons})' if reasons else ''}"
    )


def _fingerprint(contract: Contract, fact: Fact, draft: Example, digest: str) -> str:
    """sha256 of all that an answer depends on: the model, the prompt and the version of the checks.

    If a fact gets a source, or a frame other words, no row is asked again.
    """
    turns = prompt.messages(contract, fact, draft, *yardstick(contract, draft))
    question = [prompt.VERSION, digest, turns, prompt.answer_schema(contract), prompt.OPTIONS]
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()


def _finished(book: Journal, row: Row, attempts: int) -> bool:
    """Accepted, or failed with as many attempts as are allowed now."""
    entry = book.entries.get(row.key)
    return entry is not None and (entry.record is not None or entry.attempts >= attempts)


def _drop_broken(book: Journal, contract: Contract, rows: list[Row]) -> None:
    """Remove edited records that break the contract, so that their rows are asked again."""
    for row in rows:
        entry = book.entries.get(row.key)
        try:
            if entry and entry.record:
                contract.write(entry.record)
        except (ValueError, TypeError, AttributeError) as error:
            del book.entries[row.key]
            book.lines.notes.append(
                f"{book.lines.path}: row '{row.draft.id}' is asked again: {shorten(str(error), 120)}"
            )


def _print_notes(book: Journal, rows: list[Row], unfinished: int) -> None:
    """Print which rows of the journal are used and which are not."""
    notes, path = [*book.lines.notes], book.lines.path
    if foreign := len(book.entries.keys() - {row.key for row in rows}):
        notes.append(f"{path}: {foreign} rows of another model, fact, request, prompt or contract are not used")
    if unfinished < len(rows):
        notes.append(f"{path}: {len(rows) - unfinished} of {len(rows)} rows are finished already")
    for note in notes:
        print(f"teacher: {note}", file=sys.stderr)


@contextmanager
def _pausing(book: Journal, rows: list[Row], attempts: int, stop: threading.Event) -> Iterator[None]:
    """If the run ends early, say what is kept and how to resume."""
    try:
        yield
    except (UserError, KeyboardInterrupt) as error:
        finished = sum(_finished(book, row, attempts) for row in rows)
        line = f"{finished} of {len(rows)} rows are in {book.lines.path}; the same command resumes from there"
        if isinstance(error, KeyboardInterrupt):
            print(f"teacher: stopped: {line}", file=sys.stderr)
            raise
        raise UserError(f"{error}; {line}") from None
    finally:
        stop.set()


def _ask_all(
    ask: Callable[[Row, Entry | None], Entry], rows: list[Row], book: Journal, concurrency: int, label: str,
    stop: threading.Event,
) -> None:  # fmt: skip
    """Ask every row in `concurrency` threads; only this thread writes the journal."""
    waiting: queue.SimpleQueue[Row] = queue.SimpleQueue()
    results: queue.SimpleQueue[Entry | BaseException] = queue.SimpleQueue()
    for row in rows:
        waiting.put(row)

    def work() -> None:
        try:
            while not stop.is_set():
                row = waiting.get_nowait()
                results.put(ask(row, book.entries.get(row.key)))
        except (queue.Empty, StoppedError):
            return
        except BaseException as error:
            results.put(error)

    for _ in range(min(concurrency, len(rows))):  # daemons: Ctrl-C does not wait for a generation to end
        threading.Thread(target=work, daemon=True).start()
    tally = Tally(len(rows))
    with watching(label, tally) as show:
        for entry in _results(results, len(rows), show):
            before = book.entries.get((entry.id, entry.fingerprint))
            book.append(entry)
            tally.accepted += entry.record is not None
            tally.failed += entry.record is None
            tally.rejected += len(entry.rejections) - (len(before.rejections) if before else 0)
            show()


def _results(results: queue.SimpleQueue[Any], count: int, show: Callable[[], None]) -> Iterator[Entry]:
    """The finished rows as they come; an error only after the rows that were finished before it."""
    failed: BaseException | None = None
    while count and not (failed and results.empty()):
        try:
            result = results.get(timeout=1.0)  # so that progress is shown while the model works
        except queue.Empty:
            show()
            continue
        if isinstance(result, BaseException):
            failed = failed or result
        else:
            count -= 1
            yield result
    if failed:
        raise failed


def _ask(contract: Contract, server: TeacherServer, model: str, attempts: int, row: Row, before: Entry | None) -> Entry:
    """Ask one row until an answer is accepted or the attempts are used up; those of an earlier run count."""
    draft = row.draft
    needs, schema = yardstick(contract, draft), prompt.answer_schema(contract)
    rejections, answer = (list(before.rejections), before.answer) if before else ([], "")
    for attempt in range(len(rejections), attempts):
        turns = prompt.messages(contract, row.fact, draft, *needs, (rejection.found for rejection in rejections))
        try:
            reply = server.chat(prompt.body(model, turns, schema, draft.id, attempt))
        except NoAnswerError as error:
            raise UserError(f"Ollama at {server.url} does not answer: {error}; see its log") from None
        unread = _UNREADABLE.get(reply.done_reason)
        read = Rejection(unread, REASONS[unread]) if unread else read_answer(contract, row.fact, draft, reply.text)
        if not isinstance(read, Rejection):
            return Entry(draft.id, row.fingerprint, read, tuple(rejections), "", attempts)
        rejections.append(read)
        answer = shorten(reply.text)
        if unread == "PROMPT_TOO_LONG":  # no further attempt is shorter
            break
    return Entry(draft.id, row.fingerprint, None, tuple(rejections), answer, attempts)


def _taught(contract: Contract, rows: list[Row], book: Journal, pins: dict[str, Any]) -> Taught:
    """The result, from the journal alone: a run that was killed and resumed gives the same as an undisturbed one."""
    examples, failed, reasons = [], [], Counter[str]()
    entries = [book.entries[row.key] for row in rows]
    for row, entry in zip(rows, entries, strict=True):
        if entry.record is None:
            failed.append(entry)
            reasons[entry.rejections[-1].reason] += 1
        else:
            record = {section.name: entry.record[section.name] for section in contract.sections}
            examples.append(dataclasses.replace(row.draft, record=record, response=contract.write(record)))
    counts = {
        "rows": len(rows), "accepted": len(examples),
        "retried": sum(bool(entry.record and entry.rejections) for entry in entries), "failed": len(failed),
        "answers": sum(len(entry.rejections) + (entry.record is not None) for entry in entries),
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }  # fmt: skip
    return Taught(examples, failed, pins | {"prompt": prompt.VERSION} | prompt.OPTIONS, counts)
