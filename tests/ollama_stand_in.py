"""A small HTTP server in Ollama's place, for what a real one cannot be made to do: break off, hang, refuse."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CLOSE, RESET, HANG = "close", "reset", "hang"  # what a server may do instead of answering
Reply = tuple[int, Any] | str  # status and body, or one of these


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    reply: Callable[[str, Any], Reply]
    released: threading.Event


class _Speaker(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self._body()
        reply = self.server.reply(self.path, json.loads(body) if body[:1] == b"{" else body or None)
        if isinstance(reply, str):
            if reply == HANG:
                self.server.released.wait(10)
            if reply == RESET:  # a lingering time of 0 makes close() send RST
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        status, data = reply
        text = data.encode() if isinstance(data, str) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_DELETE = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the asking process was killed, as some tests do
            super().handle()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(reply: Callable[[str, Any], Reply]) -> Iterator[str]:
    """The URL of a server that answers each request with `reply(path, body)`."""
    server = _Server(("127.0.0.1", 0), _Speaker)
    server.reply, server.released = reply, threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def speaking(
    answer: Callable[[str, int], Reply], chat: Callable[[Any], Reply] | None = None
) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A server that answers with `answer(path, how many came before)`, /api/chat with `chat(body)`; what it was sent."""
    seen: list[tuple[str, Any]] = []

    def reply(path: str, body: Any) -> Reply:
        before = sum(one == path for one, _ in seen)
        seen.append((path, body))
        return chat(body) if chat and path == "/api/chat" else answer(path, before)

    with serving(reply) as url:
        yield url, seen


def in_turn(replies: dict[str, list[Reply]], path: str, number: int) -> Reply:
    """The reply to the call of this number: each path gets its replies in turn, the last for ever."""
    left = replies[next(key for key in replies if path.startswith(key))]
    return left[min(number, len(left) - 1)]
