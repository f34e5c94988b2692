"""models/ollama_server.py: sending weights, and when a server is tried again."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from models.ollama_server import PAUSES, Server
from plumbing.errors import UserError
from tests.ollama_stand_in import CLOSE, RESET, Reply, in_turn, speaking

SHA256 = "ab" * 32
BUSY: Reply = (503, {"error": "server busy, please try again"})
SHORT = (0.0,) * len(PAUSES)


@pytest.mark.parametrize("failing", [BUSY, CLOSE, RESET], ids=["busy", "closed", "reset"])
@pytest.mark.parametrize(("failures", "works"), [(len(PAUSES), True), (len(PAUSES) + 1, False)])
def test_a_failing_server_is_tried_again_with_the_whole_body_and_not_for_ever(
    failing: Reply, failures: int, works: bool
) -> None:
    bodies: list[int] = []

    def body() -> Iterator[bytes]:
        bodies.append(len(bodies))
        yield b"abc"
        yield b"def"

    replies = {"/api/blobs": [failing] * failures + [(201, "")], "/api/version": [(200, {"version": "0"})]}
    with speaking(lambda path, number: in_turn(replies, path, number)) as (url, seen):
        server = Server(url, pauses=SHORT)
        server.check()  # a server that never answered is not tried again
        with nullcontext() if works else pytest.raises(UserError, match="does not take the weights: "):
            server.upload(SHA256, body)
    assert [sent for _, sent in seen[1:]] == [b"abcdef"] * 4 and len(bodies) == 4


def test_a_server_that_answered_and_is_gone_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("models.ollama_server.time.sleep", waited.append)
    with speaking(lambda path, number: (200, "")) as (url, _):
        server = Server(url)
        assert server.has_blob(SHA256)
    with pytest.raises(UserError, match=rf"no Ollama answers at {url} .*Connection refused"):
        server.has_blob(SHA256)
    with pytest.raises(UserError, match=rf"no Ollama answers at {url} .*`ollama serve`"):
        server.digest("m")
    assert waited == [1, 2, 4] * 2


def test_a_server_that_never_answered_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("models.ollama_server.time.sleep", waited.append)
    with pytest.raises(
        UserError, match=r"no Ollama answers at http://127.0.0.1:1 .*`ollama serve`, or set OLLAMA_HOST"
    ):
        Server("http://127.0.0.1:1").has_blob(SHA256)
    assert waited == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """By httpx and by the ollama package alike."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{probe.getsockname()[1]}")
    replies: dict[str, list[Reply]] = {"/api/version": [(200, {"version": "1"})], "/api/tags": [(200, {"models": []})]}
    with speaking(lambda path, number: in_turn(replies, path, number)) as (url, _):
        assert (Server(url).check(), Server(url).digest("m")) == ("1", "")


def test_deleting_what_is_gone_is_not_an_error() -> None:
    with speaking(lambda path, number: (404, {"error": "model 'm' not found"})) as (url, seen):
        Server(url).delete("m")
    assert seen == [("/api/delete", {"model": "m"})]
    Server(url).delete("m")  # nobody there any more
