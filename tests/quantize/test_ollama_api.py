"""quantize.ollama_api: how a server is named, and how often it is asked again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from plumbing.errors import UserError
from quantize.ollama_api import WAITS, Ollama

Answer = tuple[int, str] | None  # status and body; None: close the connection


@contextlib.contextmanager
def stand_in(answers: dict[str, list[Answer]]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives each path its answers in turn, the last for ever.  Yields its URL and its calls."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            calls.append(f"{self.command} {self.path}")
            self.read_body()
            left = answers[next(key for key in answers if self.path.startswith(key))]
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer is None:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            body = answer[1].encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def read_body(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()

        do_GET = do_POST = do_HEAD = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", calls
    finally:
        server.shutdown()
        server.server_close()


BUSY = (503, '{"error":"server busy, please try again"}')


@pytest.mark.parametrize(("busy", "works"), [(len(WAITS), True), (len(WAITS) + 1, False)])
def test_a_busy_server_is_asked_again_with_the_whole_body_and_not_for_ever(busy: int, works: bool) -> None:
    waited: list[float] = []
    bodies: list[int] = []

    def body() -> Iterator[bytes]:
        bodies.append(len(bodies))
        yield b"abc"

    with stand_in({"/": [BUSY] * busy + [(201, "")]}) as (url, calls):
        ollama = Ollama(url, wait=waited.append)
        with contextlib.nullcontext() if works else pytest.raises(UserError, match="503"):
            ollama.upload("ab" * 32, body)
    assert len(calls) == len(bodies) == 4
    assert waited == [1, 2, 4]


def test_a_server_that_answered_and_is_gone_is_waited_for() -> None:
    waited: list[float] = []
    with stand_in({"/": [(200, "")]}) as (url, _):
        ollama = Ollama(url, wait=waited.append)
        assert ollama.has_blob("ab" * 32)
    with pytest.raises(UserError, match="no Ollama answers there"):
        ollama.has_blob("ab" * 32)
    assert waited == [1, 2, 4]


def test_a_server_that_never_answered_is_not_waited_for() -> None:
    waited: list[float] = []
    with pytest.raises(UserError, match="no Ollama answers there"):
        Ollama("http://127.0.0.1:1", wait=waited.append).has_blob("ab" * 32)
    assert waited == []
