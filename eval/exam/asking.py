"""Questions -> judged answers: one queue, a bounded number on the way, each answer recorded as it comes."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from contract.base import Message
from contract.contract import Contract
from contract.example import Example
from eval.exam.conditions import conversation
from eval.exam.recording import Recording, answer_key
from eval.exam.tally import Told
from eval.judge.answer_row import Judged
from eval.judge.verdict import judge
from models.answers import Answer, Ask, Backend, Request
from plumbing.errors import UserError

GIVE_UP_AFTER = 10  # requests in a row without an answer: the server is gone or sick, the rest would only wait
TELLING = 3  # answers for each of those on the way, before anything is said about the server's turns
TAKES_TURNS = 0.25  # share of an answer's time in the server's queue; two that take turns wait a half of it each


@dataclass(frozen=True)
class Question:
    """An example and how it is asked."""

    example: Example
    request: Request

    @property
    def temperature(self) -> float:
        return float(self.request.options["temperature"])


def plan(
    asked: Sequence[tuple[Example, tuple[Message, ...]]],
    condition: str,
    temperatures: Sequence[float],
    repeats: int,
    seed: int,
) -> list[Question]:
    """Every conversation at every temperature, `repeats` times; each repeat draws with a seed of its own."""  # fmt: skip
    return [
        Question(example, Request(example.id, turns, {"temperature": degree, "seed": seed + n}, condition, n))
        for degree in temperatures
        for n in range(repeats)
        for example, turns in asked
    ]  # fmt: skip


def conversations(
    contract: Contract, condition: str, shots: Sequence[Example], examples: Sequence[Example]
) -> list[tuple[Example, tuple[Message, ...]]]:
    """Each example with the turns that are sent for it."""
    spec = contract.system_prompt()
    return [(example, conversation(condition, spec, shots, example)) for example in examples]


def ask_all(
    contract: Contract, backend: Backend, questions: Sequence[Question], concurrency: int = 1,
    recording: Recording | None = None, told: Told = lambda verdict, kept: None,
) -> list[Judged]:  # fmt: skip
    """Every question answered and judged, in order; what the recording holds is not asked again.

    `told` hears each answer's verdict, None for one that never came, and whether it was recorded before.  Raises UserError when GIVE_UP_AFTER
    requests in a row got no answer.
    """
    keys = [answer_key(backend.identity, {**backend.options, **q.request.options}, q.request) for q in questions]
    found: dict[int, Judged] = {}

    def take(number: int, answer: Answer, kept: bool = False) -> None:
        question = questions[number]
        verdict = None if answer.error_kind else judge(contract, question.example, answer)
        found[number] = Judged(question.example, answer, verdict, question.temperature, question.request.repeat)
        told(verdict, kept)

    known = recording.answers if recording else {}
    for number, key in enumerate(keys):
        if key in known:
            take(number, known[key], kept=True)
    waiting = [number for number in range(len(questions)) if number not in found]
    watch = _Watch(concurrency)
    for batch in batches(backend.ask, [questions[number].request for number in waiting], concurrency):
        came = [(waiting[place], answer) for place, answer in batch]
        kept = [(keys[n], questions[n].example.id, answer) for n, answer in came if not answer.error_kind]
        if recording and kept:
            recording.append_all(kept)
        for number, answer in came:
            take(number, answer)
            watch.add(answer)
    return [found[number] for number in range(len(questions))]


class _Watch:
    """What the answers, in the order they come, tell of the server: that it is sick, or serves one at a time."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._came: list[Answer] = []
        self._lost = 0  # without one that came between

    def add(self, answer: Answer) -> None:
        self._came.append(answer)
        if len(self._came) == TELLING * self._concurrency and takes_turns(self._came, self._concurrency):
            print(_one_at_a_time(self._concurrency), file=sys.stderr, flush=True)
        self._lost = self._lost + 1 if answer.error_kind in ("transport", "server") else 0
        if self._lost == GIVE_UP_AFTER:
            raise UserError(f"{GIVE_UP_AFTER} requests in a row got no answer ({answer.error}); no report was written")


def takes_turns(came: Sequence[Answer], concurrency: int) -> bool:
    """Whether a server that was sent several requests at a time answered one at a time, by its own durations."""
    shares = [answer.waited / answer.seconds for answer in came if answer.waited is not None and answer.seconds > 0]
    return concurrency > 1 and len(shares) > concurrency and median(shares) > TAKES_TURNS


def _one_at_a_time(concurrency: int) -> str:
    return (
        f"the server answers one request at a time, so --concurrency {concurrency} gains little; "
        f"start it with OLLAMA_NUM_PARALLEL={concurrency}"
    )


def batches(ask: Ask, requests: Sequence[Request], concurrency: int) -> Iterator[list[tuple[int, Answer]]]:
    """Place and answer as they come, `concurrency` at a time on the way; what came while the last were written, together.

    One at a time needs no thread.
    """
    if concurrency == 1:
        yield from ([(place, ask(request))] for place, request in enumerate(requests))
        return
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Answer | BaseException]] = queue.SimpleQueue()
    for place in range(len(requests)):
        waiting.put(place)
    for _ in range(min(concurrency, len(requests))):  # daemons: Ctrl-C does not wait for the answers on their way
        threading.Thread(target=_work, args=(ask, requests, waiting, done), daemon=True).start()
    left = len(requests)
    try:
        while left:
            came = [done.get(), *_taken(done)]
            left -= len(came)
            yield [(place, answer) for place, answer in came if isinstance(answer, Answer)]
            for _, answer in came:
                if isinstance(answer, BaseException):
                    raise answer
    finally:
        list(_taken(waiting))  # so that nobody asks any more


def _taken(waiting: queue.SimpleQueue[Any]) -> Iterator[Any]:
    """What is in the queue now, taken out of it."""
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return


def _work(ask: Ask, requests: Sequence[Request], waiting: Any, done: Any) -> None:
    while True:
        try:
            place = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            done.put((place, ask(requests[place])))
        except BaseException as error:  # told to whoever waits for the answer
            done.put((place, error))


def check_errors(rows: Sequence[Judged], most: float, kept: str) -> None:
    """Raises UserError when a larger share than `most` got no answer: the rest would be no sample of the model."""
    lost = [row.answer for row in rows if row.answer.error_kind]
    if rows and len(lost) / len(rows) > most:
        raise UserError(
            f"{len(lost)} of {len(rows)} requests got no answer (first: {lost[0].error}), more than --max-errors "
            f"{most:g}; mend that and run again{kept}; no report was written"
        )
