"""Questions -> judged answers, each recorded as it comes; several requests may be open at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import TimeoutError as NothingYetError
from multiprocessing.pool import ThreadPool
from statistics import median

from contract.base import Message
from contract.contract import Contract
from contract.example import Example
from eval.exam.conditions import conversation
from eval.exam.recording import Recording, answer_key
from eval.exam.tally import Told
from eval.judge.answer_row import AnswerRow
from eval.judge.verdict import judge
from models.answers import Answer, Ask, Backend, Request
from plumbing.errors import UserError

GIVE_UP_AFTER = 10  # requests in a row without an answer: the server is gone or broken, the rest would only wait
FIRST_ROUNDS = 3  # answers for each open request before the server's queue is judged
TAKES_TURNS = 0.25  # share of an answer's time in the server's queue; two that take turns wait half of it each


@dataclass(frozen=True)
class Question:
    """An example and how it is asked."""

    example: Example
    request: Request

    @property
    def temperature(self) -> float:
        return float(self.request.options["temperature"])


def plan(
    asked: Sequence[tuple[Example, tuple[Message, ...]]], condition: str, temperatures: Sequence[float], repeats: int,
    seed: int,
) -> list[Question]:  # fmt: skip
    """Every conversation at every temperature, `repeats` times; each repeat has a seed of its own."""
    return [
        Question(example, Request(example.id, turns, {"temperature": temperature, "seed": seed + n}, condition, n))
        for temperature in temperatures
        for n in range(repeats)
        for example, turns in asked
    ]


def conversations(
    contract: Contract, condition: str, shots: Sequence[Example], examples: Sequence[Example]
) -> list[tuple[Example, tuple[Message, ...]]]:
    """Each example with the turns that are sent for it."""
    spec = contract.system_prompt()
    return [(example, conversation(condition, spec, shots, example)) for example in examples]


def ask_all(
    contract: Contract, backend: Backend, questions: Sequence[Question], concurrency: int = 1,
    recording: Recording | None = None, told: Told = lambda verdict, kept: None,
) -> list[AnswerRow]:  # fmt: skip
    """Ask and judge every question, in order; what the recording holds is not asked again.

    `told` is called with each answer's verdict (None when no answer came) and whether it was recorded before.  Raises
    UserError when GIVE_UP_AFTER requests in a row got no answer.
    """
    keys = [answer_key(backend.identity, {**backend.options, **q.request.options}, q.request) for q in questions]
    found: dict[int, AnswerRow] = {}

    def take(number: int, answer: Answer, kept: bool = False) -> None:
        question = questions[number]
        verdict = None if answer.error_kind else judge(contract, question.example, answer)
        found[number] = AnswerRow(question.example, answer, verdict, question.temperature, question.request.repeat)
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
            recording.append(kept)
        for number, answer in came:
            take(number, answer)
            watch.add(answer)
    return [found[number] for number in range(len(questions))]


class _Watch:
    """Reads from the answers, in the order they come, whether the server is broken or serves one request at a time."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._came: list[Answer] = []
        self._lost_in_a_row = 0

    def add(self, answer: Answer) -> None:
        self._came.append(answer)
        if len(self._came) == FIRST_ROUNDS * self._concurrency and takes_turns(self._came, self._concurrency):
            print(
                f"the server answers one request at a time, so --concurrency {self._concurrency} gains little; start it "
                f"with OLLAMA_NUM_PARALLEL={self._concurrency}", file=sys.stderr, flush=True,
            )  # fmt: skip
        self._lost_in_a_row = self._lost_in_a_row + 1 if answer.error_kind in ("transport", "server") else 0
        if self._lost_in_a_row == GIVE_UP_AFTER:
            raise UserError(f"{GIVE_UP_AFTER} requests in a row got no answer ({answer.error}); no report was written")


def takes_turns(came: Sequence[Answer], concurrency: int) -> bool:
    """Whether a server that was sent several requests at a time answered one at a time, by its own durations."""
    shares = [answer.waited / answer.seconds for answer in came if answer.waited is not None and answer.seconds > 0]
    return concurrency > 1 and len(shares) > concurrency and median(shares) > TAKES_TURNS


def batches(ask: Ask, requests: Sequence[Request], concurrency: int) -> Iterator[list[tuple[int, Answer]]]:
    """Place and answer of each request, as they come; those that came while the caller was busy are one batch.

    The pool's threads are daemons: Ctrl-C does not wait for open requests.  One request at a time needs no thread.
    """
    if concurrency == 1:
        yield from ([(place, ask(request))] for place, request in enumerate(requests))
        return
    with ThreadPool(concurrency) as pool:
        answers = pool.imap_unordered(lambda place: (place, ask(requests[place])), range(len(requests)))
        for first in answers:
            came = [first]
            try:
                with suppress(NothingYetError, StopIteration):
                    while True:
                        came.append(answers.next(timeout=0))
            finally:  # an error in one request does not lose the answers that came before it
                yield came


def check_errors(rows: Sequence[AnswerRow], most: float, kept: str) -> None:
    """Raises UserError when more than the share `most` got no answer: the rest is not a fair sample of the model."""
    lost = [row.answer for row in rows if row.answer.error_kind]
    if rows and len(lost) / len(rows) > most:
        raise UserError(
            f"{len(lost)} of {len(rows)} requests got no answer (first: {lost[0].error}), more than --max-errors "
            f"{most:g}; fix that and run again{kept}; no report was written"
        )
