"""Every way in which an Ollama fails to answer, and what becomes of it: another try, a reason, or one line of error."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from data_gen.teacher.server import TOO_LONG, StoppedError, TeacherServer
from models.answers import REPEATED, Answer
from models.ollama_server import NoAnswerError
from plumbing.errors import UserError
from tests.fake_ollama import CLOSE, RESET, FakeOllama, Reply, said

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
BUSY = (503, {"error": "server busy, please try again.  maximum pending requests exceeded"})


def server(url: str, timeout: float = 5.0, pauses: tuple[float, ...] = (0.01, 0.01)) -> TeacherServer:
    return TeacherServer(url, timeout, pauses, threading.Event())


def chat(*replies: Reply, **settings: Any) -> tuple[Answer | Exception, int]:
    """What comes of these replies in turn, the last for ever; and how often the server was asked."""
    with FakeOllama(lambda question: replies[min(question.tries, len(replies) - 1)]) as fake:
        try:
            found: Answer | Exception = server(fake.url, **settings).chat(BODY)
        except (NoAnswerError, UserError) as error:
            found = error
        return found, len(fake.questions)


ANSWERED = {
    "an answer": (said("Hello"), Answer("Hello", "stop")),
    "cut off": (said("Hel", "length"), Answer("Hel", "length")),
    "in a loop": ((500, {"error": "prediction aborted, token repeat limit reached"}), Answer("", REPEATED)),
    "in a loop, told with 200": ((200, {"error": "token repeat limit reached"}), Answer("", REPEATED)),
    "too long": ((400, {"error": {"code": 400, "n_prompt_tokens": 9, "n_ctx": 8}}), Answer("", TOO_LONG)),
    "too long, spelled as text": ((400, {"error": '{"error":{"n_prompt_tokens":9}}'}), Answer("", TOO_LONG)),
}


@pytest.mark.parametrize(("reply", "expected"), ANSWERED.values(), ids=ANSWERED)
def test_what_is_an_answer(reply: Reply, expected: Answer) -> None:
    assert chat(reply) == (expected, 1)


LOST = {
    "busy": (BUSY, "HTTP 503: server busy"),
    "crashed": ((500, {"error": "llama-server process has terminated"}), "HTTP 500: llama-server process"),
    "broken with 200": ((200, {"error": "unexpected EOF"}), "HTTP 200: unexpected EOF"),
    "closed": (CLOSE, "disconnected"),
    "reset": (RESET, ""),
    "no JSON": ((200, "<html>"), "<html>"),
    "empty": ((200, ""), "an empty body"),
    "a list": ((200, []), "HTTP 200"),
    "not done": ((200, said("x")[1] | {"done": False}), "unfinished answer"),
    "only loaded": (said("", "load"), "done_reason load"),
    "no text": ((200, said("x")[1] | {"message": {}}), "unfinished answer"),
    "a gateway": ((502, "Bad Gateway"), "HTTP 502: Bad Gateway"),
}


@pytest.mark.parametrize(("reply", "words"), LOST.values(), ids=LOST)
def test_what_may_pass_is_asked_again_and_not_for_ever(reply: Reply, words: str) -> None:
    assert chat(reply, reply, said("Hello")) == (Answer("Hello", "stop"), 3)
    error, asked = chat(reply)
    assert isinstance(error, NoAnswerError) and words in str(error) and str(error).endswith("(3 tries)") and asked == 3


REFUSED = {
    "no model": ((404, {"error": "model 'm' not found"}), "has no model 'm'; `ollama pull m` fetches it"),
    "a refused schema": ((400, {"error": {"message": "Invalid pattern"}}), "refuses the request: HTTP 400"),
    "forbidden": ((403, ""), "refuses the request: HTTP 403: an empty body"),
}


@pytest.mark.parametrize(("reply", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_pass_is_one_line_at_once(reply: Reply, words: str) -> None:
    error, asked = chat(reply)
    assert isinstance(error, UserError) and words in str(error) and "\n" not in str(error) and asked == 1


def test_a_late_answer_gets_one_more_try() -> None:
    with FakeOllama(lambda question: said("late"), delay=0.6) as fake:
        with pytest.raises(NoAnswerError, match=r"no answer within 0.2 s \(2 tries\)"):
            server(fake.url, timeout=0.2, pauses=(0.01,) * 5).chat(BODY)
        assert len(fake.questions) == 2
        fake.delay = 0.0
        assert server(fake.url, timeout=0.2).chat(BODY) == Answer("late", "stop")


def test_the_end_of_the_run_ends_a_wait() -> None:
    with FakeOllama(lambda question: BUSY) as fake:
        asking = server(fake.url, pauses=(60.0,))
        threading.Timer(0.1, asking.stop.set).start()
        with pytest.raises(StoppedError):
            asking.chat(BODY)


def test_pins() -> None:
    models = {"Qwen:latest": "d1", "qwen:7b": "d2"}
    with FakeOllama(lambda question: said(""), models=models) as fake:
        for name, digest in (("qwen", "d1"), ("qwen:latest", "d1"), ("QWEN:7B", "d2")):
            assert server(fake.url).pins(name) == {"model": name, "digest": digest, "ollama": "0.34.2"}
        with pytest.raises(UserError, match=r"has no model 'qwen:8b'; `ollama pull qwen:8b` .*quantize.register"):
            server(fake.url).pins("qwen:8b")


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"no Ollama answers at {url} .*`ollama serve`, or set OLLAMA_HOST"):
        server(url).pins("m")
