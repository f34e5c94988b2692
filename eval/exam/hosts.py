"""Several servers of one model -> one backend: each request goes to the least busy, and on when its host dies."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from models.answers import Answer, Backend, Request, failed
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from plumbing.errors import UserError


@contextmanager
def open_hosts(servers: Sequence[Server], model: str, settings: Mapping[str, Any] | None = None) -> Iterator[Backend]:
    """One backend over all of them.  Raises UserError unless they hold the same model under the same Ollama."""
    with ExitStack() as stack:
        backends = [stack.enter_context(open_ollama(server, model, settings)) for server in servers]
        if len({backend.identity for backend in backends}) > 1:
            found = "; ".join(f"{s.url}: {b.identity}" for s, b in zip(servers, backends, strict=True))
            raise UserError(f"the hosts hold different models or versions ({found}); register one model on all of them")
        hosts = Hosts(servers, backends)
        first = backends[0]
        yield Backend("ollama", model, hosts.ask, hosts.pins, first.identity, first.options)


class Hosts:
    """Who is alive and how busy.  A host that is gone is out for the rest of the run, but for the last one."""

    def __init__(self, servers: Sequence[Server], backends: Sequence[Backend]) -> None:
        self._backends = {server: backend for server, backend in zip(servers, backends, strict=True)}
        self._busy = dict.fromkeys(servers, 0)  # living host -> requests on their way
        self._lock = threading.Lock()

    def ask(self, request: Request) -> Answer:
        """The answer of one host; of the next when the connection fails."""
        tried: list[Server] = []
        answer = failed("transport", "no host is left")
        while (server := self._take(tried)) is not None:
            try:
                answer = self._backends[server].ask(request)
            finally:
                self._give_back(server)
            if answer.error_kind != "transport":
                return answer
            tried.append(server)
            if not server.is_there():
                self._drop(server, answer.error)
        return answer

    def pins(self) -> dict[str, Any]:
        """The first living host's, and the addresses of all."""
        living = [server for server in self._busy if server.is_there()] or list(self._busy)
        found = [self._backends[server].pins() for server in living]
        lengths = {pin["num_ctx"] for pin in found if pin["num_ctx"] is not None}
        if len(lengths) > 1:
            raise UserError(f"the hosts gave the model contexts of {sorted(lengths)} tokens; set one: --set num_ctx=N")
        return found[0] | {"url": ", ".join(sorted(server.url for server in self._backends))}

    def _take(self, tried: Sequence[Server]) -> Server | None:
        with self._lock:
            free = [server for server in self._busy if server not in tried]
            if not free:
                return None
            server = min(free, key=self._busy.__getitem__)
            self._busy[server] += 1
            return server

    def _give_back(self, server: Server) -> None:
        with self._lock:
            if server in self._busy:
                self._busy[server] -= 1

    def _drop(self, server: Server, error: str) -> None:
        with self._lock:
            if server not in self._busy or len(self._busy) == 1:
                return
            del self._busy[server]
        print(f"{server.url} is gone ({error}); the other hosts answer its requests", file=sys.stderr, flush=True)
