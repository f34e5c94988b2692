"""Calls of Ollama's HTTP API that create a model and read it back; each ends in an answer or in one line of error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from plumbing.errors import UserError

WAITS = (1.0, 2.0, 4.0)  # seconds before a busy or restarting server is asked again
CONNECT, ANSWER, CREATE = 5.0, 60.0, 600.0  # seconds; creating a 7B hashes and copies gigabytes between two lines
START, RETRY = "start one with `ollama serve`, or name it with --host", "look into its log and try again"


class Ollama:
    """One server.  Raises UserError with cause and cure when it is not there, refuses, or breaks off."""

    def __init__(self, url: str, wait: Callable[[float], None] = time.sleep) -> None:
        import httpx

        self.url, self._wait, self._answered = url, wait, False
        # Proxies of the environment are for the way out, not for a server of one's own.
        self._client = httpx.Client(base_url=url, trust_env=False)

    def check_name(self, name: str) -> None:
        """Raises UserError where no model may have this name: /api/show refuses it, whether it is there or not."""
        answer = self._call("POST", "/api/show", {"model": name}, allowed=(400, 404))
        if answer.status_code == 400:
            reason = _reason(answer.text)
            raise UserError(f"{self.url}: refuses the name '{name}' ({reason}); take one such as medical-mistral:tiny")

    def has_blob(self, sha256: str) -> bool:
        return self._call("HEAD", f"/api/blobs/sha256:{sha256}", allowed=(404,)).status_code == 200

    def upload(self, sha256: str, body: Callable[[], Iterator[bytes]]) -> None:
        """POST the blob; `body` begins anew at each try."""
        self._call("POST", f"/api/blobs/sha256:{sha256}", body=body, seconds=CREATE)

    def create(self, request: dict[str, Any]) -> None:
        """POST /api/create; its stream must end in the line `success`."""
        answer = self._call("POST", "/api/create", request | {"stream": True}, seconds=CREATE)
        lines = [_json(line) for line in answer.text.splitlines() if line.strip()]
        errors = [str(line["error"]) for line in lines if "error" in line]
        if errors:  # Ollama sends them with status 200 once the stream has begun
            raise UserError(f"{self.url}: refused {request['model']}: {errors[0]}")
        if not lines or lines[-1].get("status") != "success":
            raise UserError(f"{self.url}: broke off creating {request['model']} before it said success; {RETRY}")

    def show(self, name: str) -> dict[str, Any]:
        return _json(self._call("POST", "/api/show", {"model": name}).text)

    def digest(self, name: str) -> str:
        """The digest of the model's manifest: of weights, template, system and parameters together."""
        full = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        models = _json(self._call("GET", "/api/tags").text).get("models", [])
        for model in models:
            if str(model.get("name", "")).lower() == full.lower():
                return str(model["digest"])
        raise UserError(f"{self.url}: does not list {full} after creating it; {RETRY}")

    def _call(
        self, method: str, path: str, data: Any = None, body: Callable[[], Iterator[bytes]] | None = None,
        seconds: float = ANSWER, allowed: tuple[int, ...] = (),
    ) -> Any:  # fmt: skip
        """The response, read whole.  Tries again when the server is busy (503) or, having answered before, is gone."""
        import httpx

        timeout = httpx.Timeout(seconds, connect=CONNECT)
        for wait in (*WAITS, None):
            arguments: dict[str, Any] = {"content": body()} if body else {} if data is None else {"json": data}
            try:
                answer = self._client.request(method, path, timeout=timeout, **arguments)
            except httpx.ConnectError:
                if wait is None or not self._answered:
                    raise UserError(f"{self.url}: no Ollama answers there; {START}") from None
            except httpx.TimeoutException:
                raise UserError(f"{self.url}: did not answer {path} in time; {RETRY}") from None
            except httpx.TransportError as error:
                raise UserError(f"{self.url}: closed the connection in {path} ({error}); {RETRY}") from None
            else:
                self._answered = True
                if answer.is_success or answer.status_code in allowed:
                    return answer
                if wait is None or answer.status_code != 503:
                    raise UserError(f"{self.url}: {path} failed with {answer.status_code}: {_reason(answer.text)}")
            self._wait(wait)
        raise AssertionError("the last try returns or raises")


def _reason(text: str) -> str:
    """Ollama's own words of an error answer."""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:200] or "no reason given"


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f"the server answered {text[:80]!r}, which is no answer of Ollama's; check --host")
    return value
