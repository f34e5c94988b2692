"""A running Ollama: its address, one checked call, what it holds of a model, and chat as a backend.

server = Server(server_url(None))
with open_ollama(server, "medical-mistral") as backend:  # several servers: eval/exam/hosts.py
    backend.ask(Request("1", ({"role": "user", "content": "Explain the medical term: uremia"},)))
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from models.answers import REPEATED, Answer, Backend, ReplacedError, Request, failed, spelled
from models.modelfile import shown_parameters
from models.options import own_options
from plumbing.errors import UserError

TIMEOUT = 300.0  # seconds for one answer: a 7B on two cores takes about 100, its first load 60
CONNECT = 5.0  # seconds until a host counts as not there
PAUSES = (0.5, 1.0, 2.0)  # seconds before each further try
# Ollama ends a generation after about 100 equal chunks in a row: the model's doing, so an answer, and a failed one.
LOOPED = "token repeat limit reached"


class NoAnswerError(Exception):
    """No answer came: kind `transport` (no connection, closed, too late) or `server` (it answered with an error)."""

    def __init__(self, kind: str, message: str, status: int = 0, again: bool = False) -> None:
        super().__init__(message)
        self.kind, self.status, self.again = kind, status, again


class Server:
    """Ollama's HTTP API at `url`; every call has a time limit."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        import httpx

        self.url, self.timeout = url, timeout
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)  # --concurrency is the bound
        # Proxies of the environment are for the way out, not for a server of one's own.
        self.client = httpx.Client(
            base_url=url, timeout=httpx.Timeout(timeout, connect=min(CONNECT, timeout)), limits=limits, trust_env=False
        )

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that GET (no body) or POST gives.  Raises NoAnswerError.

        Tries again only what may pass: 503 (busy), a refused and a broken connection.
        """
        for pause in PAUSES:
            try:
                return self._once(path, body)
            except NoAnswerError as error:
                if not error.again:
                    raise
                time.sleep(pause)
        return self._once(path, body)

    def _once(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        import httpx

        try:
            response = self.client.get(path) if body is None else self.client.post(path, json=body)
        except httpx.ConnectTimeout:
            raise NoAnswerError("transport", f"no connection within {CONNECT:g} s") from None
        except httpx.TimeoutException:
            raise NoAnswerError("transport", f"no answer within {self.timeout:g} s") from None
        except httpx.TransportError as error:
            broken = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
            raise NoAnswerError("transport", str(error) or type(error).__name__, again=broken) from None
        try:
            data = response.json()
        except ValueError:
            data = None
        status = response.status_code
        message = str(data["error"]) if isinstance(data, dict) and "error" in data else ""
        if status != 200 or message or not isinstance(data, dict):
            found = message or response.text[:120] or "an empty body"
            raise NoAnswerError("server", f"HTTP {status}: {found}", status, again=status == 503)
        return data

    def is_there(self) -> bool:
        """Whether anything answers at the address, soon."""
        import httpx

        try:
            self.client.get("/api/version", timeout=CONNECT)
        except httpx.TransportError:
            return False
        return True

    def check(self) -> str:
        """Ollama's version.  Raises UserError with cause and cure when it cannot be used."""
        try:
            return str(self.call("/api/version")["version"])
        except NoAnswerError as error:
            if error.kind == "transport":
                cure = "start it with `ollama serve`, name it with --host, or judge by `eval.adherence --gguf FILE`"
                raise UserError(f"no Ollama answers at {self.url} ({error}); {cure}") from None
            cure = "wait until it is idle" if error.status == 503 else "is that an Ollama? name it with --host"
            raise UserError(f"Ollama at {self.url} refuses: {error}; {cure}") from None
        except KeyError:
            raise UserError(f"{self.url} is no Ollama: it names no version; name one with --host") from None

    def show(self, model: str) -> dict[str, Any]:
        """/api/show.  Raises UserError when the model is not registered."""
        try:
            return self.call("/api/show", {"model": model})
        except NoAnswerError as error:
            if error.status == 404:
                cure = f"`python -m quantize.register MODEL_DIR {model}` registers it"
                raise UserError(f"Ollama at {self.url} has no model '{model}'; {cure}") from None
            raise UserError(f"Ollama at {self.url} does not show '{model}': {error}") from None

    def digest(self, model: str) -> str:
        """The digest of the model's manifest (weights, template, system, parameters); "" when it is gone."""
        names = {model.lower(), f"{model}:latest".lower()}
        rows = self._rows("/api/tags")
        return next((str(row.get("digest")) for row in rows if str(row.get("name")).lower() in names), "")

    def context_length(self, digest: str) -> int | None:
        """The context that the loaded model was really given; None when it is not loaded any more."""
        return next((row.get("context_length") for row in self._rows("/api/ps") if row.get("digest") == digest), None)

    def _rows(self, path: str) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = self.call(path).get("models") or []
        except NoAnswerError as error:
            raise UserError(
                f"Ollama at {self.url} stopped answering: {error}; start it again and repeat the run"
            ) from None
        return rows


@contextmanager
def open_ollama(server: Server, model: str, settings: Mapping[str, Any] | None = None) -> Iterator[Backend]:
    """Chat with a registered model by the native API; `settings` stand before the model's own parameters.

    Raises UserError when it cannot, and from `pins` when the model is replaced midway.
    """
    version, shown = server.check(), server.show(model)
    digest, details = server.digest(model), shown.get("details", {})
    if not digest:  # without it nobody could tell which weights an answer is of
        raise UserError(f"Ollama at {server.url} does not list '{model}'; name it as `ollama list` does")
    options = own_options(shown_parameters(str(shown.get("parameters") or "")), _trained_context(shown))
    options |= settings or {}

    def pins() -> dict[str, Any]:
        if server.digest(model) != digest:
            raise ReplacedError(f"'{model}' was registered anew while it was being measured; run again")
        return {
            "ollama": version, "digest": digest, "weights": weights_digest(shown), "url": server.url,
            "num_ctx": server.context_length(digest), "quantisation": details.get("quantization_level"),
            **{name: _sha256(shown.get(name)) for name in ("template", "system", "parameters")},
        }  # fmt: skip

    identity = f"ollama {version} {digest}"  # the digest is of weights, template, system text and parameters
    yield Backend("ollama", model, lambda request: _chat(server, model, options, request), pins, identity, options)


def _trained_context(shown: dict[str, Any]) -> int | None:
    info = shown.get("model_info") or {}
    return next((value for key, value in info.items() if key.endswith(".context_length")), None)


def _sha256(text: Any) -> str:
    return hashlib.sha256(str(text or "").encode()).hexdigest()


def weights_digest(shown: dict[str, Any]) -> str:
    """The sha256 of the served GGUF, out of /api/show's Modelfile (`FROM .../sha256-<hex>`)."""
    found = re.search(r"^FROM .*sha256[-:]([0-9a-f]{64})", str(shown.get("modelfile", "")), re.MULTILINE)
    return found.group(1) if found else ""


def _chat(server: Server, model: str, options: Mapping[str, Any], request: Request) -> Answer:
    sent = {**options, **request.options}
    body = {
        "model": model, "messages": list(request.messages), "stream": False, "keep_alive": "10m",
        "truncate": False, "shift": False,  # a prompt or answer too long for the context is an error, not silently cut
        "options": sent,
    }  # fmt: skip
    started = time.monotonic()
    try:
        data = server.call("/api/chat", body)
    except NoAnswerError as error:
        seconds = time.monotonic() - started
        if LOOPED in str(error):
            return Answer("", REPEATED, seconds=seconds)
        return failed(error.kind, str(error), seconds)
    return _read_chat(data, sent["num_ctx"], time.monotonic() - started)


def _read_chat(data: dict[str, Any], num_ctx: int, seconds: float) -> Answer:
    """Only a finished answer to the whole prompt counts.

    That is `done: true`, a text, a reason that ends a generation, and a prompt shorter than the context.
    """
    message = data.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    reason, prompt = data.get("done_reason"), data.get("prompt_eval_count")
    if data.get("done") is not True or not isinstance(text, str) or reason not in ("stop", "length"):
        return failed("server", f"unfinished answer: done {data.get('done')}, done_reason {reason}", seconds)
    if not isinstance(prompt, int) or not 0 < prompt < num_ctx:
        return failed("server", f"prompt_eval_count {prompt}, wanted 1 to {num_ctx - 1} (num_ctx {num_ctx})", seconds)
    return Answer(spelled(text), reason, prompt, data.get("eval_count"), seconds, _waited(data))


def _waited(data: dict[str, Any]) -> float | None:
    """Seconds in the server's queue: what of its own total it neither loaded nor evaluated.  None when it is not told."""
    total = data.get("total_duration")
    if not isinstance(total, int):
        return None
    worked = sum(data.get(f"{part}_duration") or 0 for part in ("load", "prompt_eval", "eval"))
    return round(max(0, total - worked) / 1e9, 4)
