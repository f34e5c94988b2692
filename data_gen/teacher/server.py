"""One chat with a model of a running Ollama: an answer, or NoAnswerError once patience has run out.

What may pass (refused, closed, reset, busy, a crashed runner) is asked again after a pause; what cannot pass (no such
model, a request that is refused) is a UserError at once.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

from plumbing.errors import UserError

TIMEOUT = 300.0  # seconds for one answer of a model that has the machine to itself: a 7B on two cores takes about 200
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try: a restarted server needs about ten
CONNECT = 5.0  # seconds
LOOPED, TOO_LONG = "looped", "too long"  # done_reasons of ours, beside Ollama's stop and length
_PASSING = (429, 500, 502, 503, 504)


class NoAnswerError(Exception):
    """Nobody answered, or with what is no answer; `late`: the time ran out, so one more try is all that is worth it."""

    def __init__(self, message: str, late: bool = False) -> None:
        super().__init__(message)
        self.late = late


class StoppedError(Exception):
    """The run has ended while this call waited."""


@dataclass(frozen=True)
class Said:
    text: str
    done_reason: str  # stop, length, LOOPED (the server broke off a loop) or TOO_LONG (the prompt does not fit)


class TeacherServer:
    """Ollama's HTTP API at `url`.  `stop`, once set, ends every wait."""

    def __init__(self, url: str, timeout: float, pauses: tuple[float, ...], stop: threading.Event) -> None:
        import httpx

        self.url, self.timeout, self.pauses, self.stop = url, timeout, pauses, stop
        limits = httpx.Limits(max_connections=None)
        # Proxies of the environment are for the way out, not for a server of one's own.
        self.client = httpx.Client(
            base_url=url, timeout=httpx.Timeout(timeout, connect=CONNECT), limits=limits, trust_env=False
        )

    def pins(self, model: str) -> dict[str, str]:
        """The server's version and the digest of the model's manifest: weights, template, system, parameters.

        Raises UserError when there is no Ollama, or no such model.
        """
        try:
            version = str(self._once("GET", "/api/version").get("version", "unknown"))
            listed = self._once("GET", "/api/tags").get("models")
            rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        except NoAnswerError as error:
            cure = "start it with `ollama serve`, or set OLLAMA_HOST"
            raise UserError(f"no Ollama answers at {self.url} ({error}); {cure}") from None
        names = {model.lower(), f"{model}:latest".lower()}
        digest = next((str(row.get("digest")) for row in rows if str(row.get("name")).lower() in names), "")
        if not digest:
            raise self._no_model(model)
        return {"model": model, "digest": digest, "ollama": version}

    def chat(self, body: dict[str, Any]) -> Said:
        """The answer to POST /api/chat.  Raises NoAnswerError after the last try, StoppedError, UserError."""
        for number, pause in enumerate((*self.pauses, None), 1):
            try:
                return self._said(self._once("POST", "/api/chat", body))
            except NoAnswerError as error:
                if "token repeat limit reached" in str(error):
                    return Said("", LOOPED)
                if "n_prompt_tokens" in str(error):
                    return Said("", TOO_LONG)
                if pause is None or (error.late and number > 1):
                    raise NoAnswerError(f"{error} ({number} tries)" if number > 1 else str(error)) from None
            if self.stop.wait(pause):
                raise StoppedError
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import httpx

        try:
            response = self.client.request(method, path, json=body)
        except httpx.ReadTimeout:
            raise NoAnswerError(f"no answer within {self.timeout:g} s", late=True) from None
        except httpx.TransportError as error:
            raise NoAnswerError(str(error) or type(error).__name__) from None
        try:
            data = response.json()
        except ValueError:
            data = None
        error_text = _error(data) or (response.text[:120] if not isinstance(data, dict) else "")
        if response.status_code == 200 and isinstance(data, dict) and not error_text:
            return data
        if response.status_code == 404 and body:
            raise self._no_model(str(body["model"]))
        message = f"HTTP {response.status_code}: {error_text or 'an empty body'}"
        if response.status_code in (200, *_PASSING) or "n_prompt_tokens" in message:
            raise NoAnswerError(message)
        raise UserError(f"Ollama at {self.url} refuses the request: {message}")

    def _said(self, data: dict[str, Any]) -> Said:
        """Only a finished answer counts: `done: true`, a text, and a reason that ends a generation."""
        message, reason = data.get("message"), data.get("done_reason")
        text = message.get("content") if isinstance(message, dict) else None
        if data.get("done") is not True or not isinstance(text, str) or reason not in ("stop", "length"):
            raise NoAnswerError(f"unfinished answer: done {data.get('done')}, done_reason {reason}")
        return Said(text, reason)

    def _no_model(self, model: str) -> UserError:
        cure = f"`ollama pull {model}` fetches it, `python -m quantize.register MODEL_DIR {model}` registers your own"
        return UserError(f"Ollama at {self.url} has no model '{model}'; {cure}")


def _error(data: Any) -> str:
    """Ollama's words of an error: text, an object, or an object spelled as text."""
    found = data.get("error") if isinstance(data, dict) else None
    return "" if found is None else found if isinstance(found, str) else json.dumps(found)
