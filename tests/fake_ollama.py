"""An Ollama that teaches: it writes a valid record from the facts in the prompt, and any fault that a test asks for.

with FakeOllama(lambda question: question.record()) as fake:
    fake.url, fake.questions
"""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from contract.contract import Contract, load_contract
from contract.example import Example
from data_gen.facts import Fact
from tests import ollama_stand_in
from tests.ollama_stand_in import CLOSE as CLOSE
from tests.ollama_stand_in import RESET as RESET
from tests.ollama_stand_in import serving

Reply = dict[str, Any] | ollama_stand_in.Reply  # a record is the answer's text
CONTRACT = load_contract("terminology")
PLACES = ["alveoli", "bladder", "cornea", "duodenum", "epidermis", "femur", "gallbladder", "hypothalamus"]
_FACT = re.compile(r"^- (definition|mechanism|clinical): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """A body that /api/chat got.  `tries` counts the same body, asked before."""

    body: dict[str, Any]
    tries: int

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])

    @property
    def told(self) -> str:
        """Why earlier answers were refused; "" at the first attempt."""
        return self.prompt.partition("Earlier answers were refused:\n")[2]

    @property
    def concept(self) -> str:
        return str(re.search(r"^Facts about (.*):$", self.prompt, re.MULTILINE)[1])  # type: ignore[index]

    def record(self, **changes: str) -> dict[str, str]:
        """What an apt model answers: the facts, worded a little otherwise."""
        facts = dict(_FACT.findall(self.prompt.partition("The keys of")[0]))
        definition = f"Put simply, {facts['definition'][:1].lower()}{facts['definition'][1:]}"
        return {
            "definition": definition,
            "explanation": facts["mechanism"],
            "clinical_relevance": facts["clinical"],
        } | changes


@dataclass
class FakeOllama:
    """`answer` says what each question gets; `models` are what /api/tags lists, name -> digest."""

    answer: Callable[[Question], Reply]
    models: dict[str, str] = field(default_factory=lambda: {"m:latest": "d1"})
    delay: float = 0.0  # seconds that each answer takes
    questions: list[Question] = field(default_factory=list)
    at_once: int = 0  # most questions in work at any time

    def __enter__(self) -> FakeOllama:
        self.busy, self.lock = 0, threading.Lock()
        self._open = serving(self.reply)
        self.url = self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def reply(self, path: str, body: dict[str, Any] | None) -> ollama_stand_in.Reply:
        if path == "/api/version":
            return 200, {"version": "0.34.2"}
        if path == "/api/tags":
            return 200, {"models": [{"model": name, "digest": digest} for name, digest in self.models.items()]}
        assert path == "/api/chat" and body, path
        if body["model"] not in {name.removesuffix(":latest") for name in self.models}:
            return 404, {"error": f"model '{body['model']}' not found"}
        with self.lock:
            question = Question(body, sum(body == before.body for before in self.questions))
            self.questions.append(question)
            self.busy += 1
            self.at_once = max(self.at_once, self.busy)
        time.sleep(self.delay)
        reply = self.answer(question)
        with self.lock:
            self.busy -= 1
        return said(json.dumps(reply)) if isinstance(reply, dict) else reply


def said(text: str, done_reason: str = "stop") -> tuple[int, dict[str, Any]]:
    """Ollama's answer with this text."""
    return 200, {"message": {"role": "assistant", "content": text}, "done": True, "done_reason": done_reason}


def apt(question: Question) -> Reply:
    return question.record()


def moody(question: Question) -> Reply:
    """Of five concepts one never gets a sound answer, two get one at the second attempt; the same at every run."""
    mood = zlib.crc32(question.concept.encode()) % 5
    if mood == 0:
        return question.record(explanation="It strikes 99 percent of all swelling people in the world.")
    if mood == 1 and not question.told:
        return question.record(explanation="Many kinds of white cells come and let their enzymes out.")
    if mood == 2 and not question.told:
        return said('{"definition": "')
    return question.record()


def make_drafts(count: int, contract: Contract = CONTRACT) -> list[tuple[Fact, Example]]:
    """Facts of one inflammation each, and their composed rows."""
    return [
        make_draft(f"{PLACES[n % 8]}{'aeiou'[n // 8 % 5]}{'lmnrs'[n // 40 % 5]}itis", PLACES[n % 8], contract)
        for n in range(count)
    ]


def make_draft(concept: str, place: str, contract: Contract = CONTRACT) -> tuple[Fact, Example]:
    texts = {
        "definition": f"{concept.capitalize()} is an inflammation of the {place} that lasts 3 to 5 days.",
        "mechanism": f"Two kinds of white cells enter the {place}, release enzymes and cause swelling. Blood flow rises by 20%.",
        "clinical": f"Pain over the {place} and fever above 38.5 degrees are typical. CD4 counts stay normal in most cases.",
    }
    fact = Fact(f"t/{concept}", "t", concept, keywords=(place, "swelling", "fever"), texts=texts)
    record = {
        "definition": texts["definition"], "explanation": texts["mechanism"], "clinical_relevance": texts["clinical"],
        "note": contract.sections[-1].kind.text,  # type: ignore[union-attr]
    }  # fmt: skip
    row = Example(
        f"{fact.id}/0", concept, "t", f"Explain {concept}.", "", record, contract.write(record), fact.keywords
    )
    return fact, row
