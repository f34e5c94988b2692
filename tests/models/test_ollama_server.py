"""Every way in which Ollama fails to answer, by a small HTTP server; tests/eval/parity talks to a real one."""

import hashlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from models.answers import REPEATED, Answer, Request
from models.ollama_chat import open_ollama
from models.ollama_server import NoAnswerError, Server
from plumbing.errors import UserError
from tests.ollama_stand_in import CLOSE, HANG, RESET, Reply, speaking

REQUEST = Request("a", ({"role": "user", "content": "Hi"},), {"num_predict": 3})
DONE = {
    "message": {"role": "assistant", "content": " Hello"},
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 9,
    "eval_count": 2,
}
SHOWN: dict[str, Any] = {
    "modelfile": f"FROM /blobs/sha256-{'a' * 64}\n", "details": {"quantization_level": "Q4_K_M"},
    "parameters": 'num_ctx    1024\nrepeat_penalty   1.1\nstop    "</s>"\ntemperature   0.7',
    "template": "{{ .System }}", "system": "You explain.",
}  # fmt: skip
REST: dict[str, Reply] = {
    "/api/version": (200, {"version": "0.34.2"}),
    "/api/show": (200, SHOWN),
    "/api/tags": (200, {"models": [{"model": "m:latest", "digest": "d1"}]}),
    "/api/ps": (200, {"models": [{"model": "m:latest", "digest": "d1", "context_length": 1024}]}),
}  # fmt: skip


def impatient(url: str) -> Server:
    return Server(url, timeout=0.5)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.ollama_server.PAUSES", (0.01, 0.01))


def chat(*replies: Reply) -> tuple[Answer, list[tuple[str, Any]]]:
    """The answer when /api/chat gives these replies in turn, the last for ever; and what it was asked."""

    def answer(path: str, number: int) -> Reply:
        return replies[min(number, len(replies) - 1)] if path == "/api/chat" else REST[path]

    with speaking(answer) as (url, seen), open_ollama(impatient(url), "m") as backend:
        found = backend.ask(REQUEST)
    return found, [row for row in seen if row[0] == "/api/chat"]


def test_asks_for_a_repeatable_uncut_answer() -> None:
    answer, asked = chat((200, DONE))
    assert (answer.text, answer.done_reason, answer.prompt_tokens, answer.answer_tokens) == (" Hello", "stop", 9, 2)
    assert asked[0][1] == {
        "model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": False, "truncate": False,
        "shift": False, "keep_alive": "10m", "options": {
            "num_ctx": 1024, "num_predict": 3, "stop": ["</s>"], "repeat_penalty": 1.1, "frequency_penalty": 0.0,
            "repeat_last_n": 64,
            "top_k": 40, "top_p": 0.9, "min_p": 0.0, "temperature": 0.0, "seed": 0,
        },
    }  # fmt: skip


LOST = {
    "busy for ever": ((503, {"error": "server busy, please try again."}), "server", "HTTP 503: server busy", 3),
    "closed": (CLOSE, "transport", "disconnected", 3),
    "reset": (RESET, "transport", "", 3),
    "silent": (HANG, "transport", "no answer within 0.5 s", 1),
    "gone": ((404, {"error": "model 'm' not found"}), "server", "HTTP 404: model 'm' not found", 1),
    "too long": ((400, {"error": '{"n_prompt_tokens": 9}'}), "server", "n_prompt_tokens", 1),
    "crashed": ((500, {"error": "llama-server process has terminated"}), "server", "HTTP 500", 1),
    "an error with 200": ((200, {"error": "unexpected EOF"}), "server", "unexpected EOF", 1),
    "not done": ((200, DONE | {"done": False}), "server", "unfinished", 1),
    "only loaded": ((200, DONE | {"done_reason": "load"}), "server", "done_reason load", 1),
    "no text": ((200, DONE | {"message": {}}), "server", "unfinished", 1),
    "no prompt count": ((200, DONE | {"prompt_eval_count": None}), "server", "prompt_eval_count is None", 1),
    "a prompt that fills the context": ((200, DONE | {"prompt_eval_count": 1024}), "server", "num_ctx 1024", 1),
    "no JSON": ((200, "<html>"), "server", "<html>", 1),
    "a list": ((200, []), "server", "HTTP 200", 1),
    "empty": ((200, ""), "server", "an empty body", 1),
}  # fmt: skip


@pytest.mark.parametrize(("reply", "kind", "words", "tries"), LOST.values(), ids=LOST)
def test_what_is_no_answer_is_an_error_of_its_own(reply: Reply, kind: str, words: str, tries: int) -> None:
    answer, asked = chat(reply)
    assert answer.error_kind == kind and words in answer.error and answer.error
    assert answer.text == "" and answer.done_reason == ""
    assert len(asked) == tries, "tries again only what may pass, and not for ever"


@pytest.mark.parametrize("first", [(503, {"error": "busy"}), CLOSE, RESET], ids=["busy", "closed", "reset"])
def test_what_passes_is_tried_again(first: Reply) -> None:
    answer, asked = chat(first, (200, DONE))
    assert answer.text == " Hello" and answer.error_kind == "" and len(asked) == 2


def test_a_model_in_a_loop_has_answered() -> None:
    answer, asked = chat((500, {"error": "prediction aborted, token repeat limit reached"}))
    assert (answer.text, answer.done_reason, answer.error_kind) == ("", REPEATED, "") and len(asked) == 1


def test_nobody_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(NoAnswerError) as caught:
        impatient(url).call("/api/version")
    assert caught.value.kind == "transport"
    with pytest.raises(UserError, match=rf"no Ollama answers at {url} .*`ollama serve`, or set OLLAMA_HOST to its"):
        impatient(url).check()
    with (
        pytest.raises(UserError, match=r"OLLAMA_HOST to its address, or judge by .*--gguf"),
        open_ollama(Server(url), "m"),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "reply", "words"),
    [
        ("/api/version", (503, {"error": "busy"}), "HTTP 503: busy; wait"),
        ("/api/version", CLOSE, "no Ollama answers"),
        ("/api/version", (404, "not found"), "is not an Ollama"),
        ("/api/version", (200, {}), "is not an Ollama"),
        ("/api/show", (404, {"error": "not found"}), "no model 'm'; `python -m quantize.register MODEL_DIR m"),
        ("/api/show", (500, {"error": "broken"}), "does not show 'm'"),
        ("/api/tags", CLOSE, "does not list its models"),
    ],
)  # fmt: skip
def test_a_server_that_cannot_be_measured_is_one_line(path: str, reply: Reply, words: str) -> None:
    with (
        speaking(lambda asked, _: reply if asked == path else REST[asked]) as (url, _),
        pytest.raises(UserError) as caught,
        open_ollama(impatient(url), "m"),
    ):
        pass
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_pins_what_was_measured() -> None:
    with speaking(lambda path, _: REST[path]) as (url, _), open_ollama(impatient(url), "M") as backend:
        pins = backend.pins()
    expected = {"ollama": "0.34.2", "digest": "d1", "weights": "a" * 64, "num_ctx": 1024, "quantisation": "Q4_K_M"}
    held = {name: SHOWN.get(name, "") for name in ("template", "system", "parameters")}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in held.items()}
    assert pins == expected | digests | {"url": url} and digests["template"] != digests["system"] != ""


def test_a_model_replaced_midway_is_no_measurement() -> None:
    tags = [(200, {"models": [{"model": "m:latest", "digest": digest}]}) for digest in ("d1", "d2")]
    answer: Callable[[str, int], Reply] = lambda path, n: tags[n] if path == "/api/tags" else REST[path]  # noqa: E731
    with (
        speaking(answer) as (url, _),
        open_ollama(impatient(url), "m") as backend,
        pytest.raises(UserError, match="registered again"),
    ):
        backend.pins()


def test_settings_stand_before_the_models_own_parameters() -> None:
    with speaking(lambda path, _: REST[path] if path != "/api/chat" else (200, DONE)) as (url, seen):
        with open_ollama(impatient(url), "m", {"num_ctx": 512, "stop": ["END"]}) as backend:
            backend.ask(REQUEST)
        sent = seen[-1][1]["options"]
    assert (sent["num_ctx"], sent["stop"], sent["num_predict"], sent["repeat_penalty"]) == (512, ["END"], 3, 1.1)


def test_the_time_in_the_servers_queue_is_told() -> None:
    durations = {"total_duration": 9 * 10**9, "load_duration": 10**9, "prompt_eval_duration": 2 * 10**9}
    answer, _ = chat((200, DONE | durations | {"eval_duration": 3 * 10**9}))
    assert answer.waited == 3.0 and chat((200, DONE))[0].waited is None


def test_an_identity_is_of_version_and_digest() -> None:
    with speaking(lambda path, _: REST[path]) as (url, _), open_ollama(impatient(url), "m") as backend:
        assert backend.identity == "ollama 0.34.2 d1"
