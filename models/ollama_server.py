"""A running Ollama: what it holds of a model, and how a model is registered with it.

server = Server(server_url(None))
server.check(), server.digest("medical-mistral")   # chat: models/ollama_chat.py
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from plumbing.errors import UserError

if TYPE_CHECKING:
    import ollama

T = TypeVar("T")
TIMEOUT = 300.0  # seconds for one answer: a 7B on two cores takes 100 to 200, its first load 60
CREATE = 600.0  # seconds for one part of an upload or a creation: a 7B's gigabytes are hashed and copied
CONNECT = 5.0  # seconds until a host counts as not there
PAUSES = (1.0, 2.0, 4.0)  # seconds before each further try
START = "start it with `ollama serve`, or set OLLAMA_HOST to its address"


class NoAnswerError(Exception):
    """No answer came: kind `transport` (no connection, closed, too late) or `server` (an error, or no valid answer).

    `status` is HTTP's, `again` whether another try may succeed, `late` whether the time limit was reached, `gone`
    whether there is no server at the address.
    """

    def __init__(
        self, kind: str, message: str, status: int = 0, again: bool = False, late: bool = False, gone: bool = False
    ) -> None:
        super().__init__(message)
        self.kind, self.status, self.again, self.late, self.gone = kind, status, again, late, gone


class Server:
    """Ollama's HTTP API at `url`, by the ollama package, and by httpx for what the package lacks.

    Every call has a time limit.  After each of `pauses` a busy server (503) is tried again, and so is a server that
    answered before and now refuses or breaks the connection.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT, pauses: Sequence[float] | None = None) -> None:
        import httpx

        self.url, self._timeout, self._answered = url, timeout, False
        self._pauses = PAUSES if pauses is None else pauses
        self._http = httpx.Client(base_url=url, **self._settings(timeout))

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON object that GET (no body) or POST gives.  Raises NoAnswerError."""

        def exchange() -> dict[str, Any]:
            response = self._http.request("GET" if body is None else "POST", path, json=body)
            data = _data(response)
            if data is None:
                raise NoAnswerError("server", f"HTTP 200: {response.text[:120] or 'an empty body'}", 200)
            return data

        return self._try(exchange)

    def check(self, instead: str = "") -> str:
        """Ollama's version.  Raises UserError when it cannot be used; `instead` adds a way without one."""
        with self._errors("gives no version", {404: "is not an Ollama; set OLLAMA_HOST"}, instead):
            version = self.call("/api/version").get("version")  # the package has no call for it
            if not version:
                raise NoAnswerError("server", "it is not an Ollama", 404)
            return str(version)

    def show(self, model: str) -> dict[str, Any]:
        """/api/show.  Raises UserError when the model is not registered."""
        cure = f"`python -m quantize.register MODEL_DIR {model}` registers it"
        with self._errors(f"does not show '{model}'", {404: f"has no model '{model}'; {cure}"}):
            return self.call("/api/show", {"model": model})  # the package drops `system`

    def digest(self, model: str) -> str:
        """The digest of the model's manifest (weights, template, system, parameters); "" when it is not listed."""
        names = {model.lower(), f"{model}:latest".lower()}
        with self._errors("does not list its models"), self._package() as client:
            rows = self._try(lambda: client.list().models)
        return next((row.digest or "" for row in rows if str(row.model).lower() in names), "")

    def context_length(self, digest: str) -> int | None:
        """The context that the loaded model was really given; None when it is no longer loaded."""
        with self._errors("does not list the loaded models"), self._package() as client:
            rows = self._try(lambda: client.ps().models)
        return next((row.context_length for row in rows if row.digest == digest), None)

    def check_name(self, name: str) -> None:
        """Raises UserError when no model may have this name: /api/show refuses it, whether it is there or not."""
        refused = f"refuses the name '{name}'; take one such as medical-mistral:tiny"
        with self._errors("does not check a name", {400: refused}):
            try:
                self.call("/api/show", {"model": name})
            except NoAnswerError as error:
                if error.status != 404:
                    raise

    def has_blob(self, sha256: str) -> bool:
        """Whether the server holds the file of this digest."""
        with self._errors("does not look for the weights"):  # the package has no call for it
            return self._try(lambda: self._http.head(f"/api/blobs/sha256:{sha256}")).is_success

    def upload(self, sha256: str, body: Callable[[], Iterator[bytes]]) -> None:
        """Send a file; `body` starts from its beginning at each try."""
        path, seconds = f"/api/blobs/sha256:{sha256}", self._settings(CREATE)["timeout"]
        with self._errors("does not take the weights"):  # the package hashes the file again and reports no progress
            self._try(lambda: _data(self._http.post(path, content=body(), timeout=seconds)))

    def create(self, request: dict[str, Any]) -> None:
        """Register a model.  The stream must end in `success`: its errors come with status 200."""
        import ollama

        with self._errors(f"does not create {request['model']}"), self._package(CREATE) as client:
            try:
                states = self._try(lambda: [part.status for part in client.create(**request, stream=True)])
            except ollama.ResponseError as error:
                raise NoAnswerError("server", error.error) from None
            if states[-1:] != ["success"]:
                raise NoAnswerError("server", "it broke off before `success`")

    def delete(self, model: str) -> None:
        """Forget a model; one that is not there, or a server that is gone, is not an error."""
        with suppress(NoAnswerError), self._package() as client:
            self._once(lambda: client.delete(model))

    def _settings(self, seconds: float) -> dict[str, Any]:
        import httpx

        return {
            "timeout": httpx.Timeout(seconds, connect=min(CONNECT, seconds)),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),  # --concurrency is the bound
            "trust_env": False,  # proxies of the environment are for the way out, not for a server of one's own
        }

    def _package(self, seconds: float | None = None) -> ollama.Client:
        import ollama

        return ollama.Client(self.url, event_hooks={"response": [_data]}, **self._settings(seconds or self._timeout))

    def _try(self, ask: Callable[[], T]) -> T:
        for pause in self._pauses:
            try:
                return self._once(ask)
            except NoAnswerError as error:
                if not error.again:
                    raise
            time.sleep(pause)
        return self._once(ask)

    def _once(self, ask: Callable[[], T]) -> T:
        """What `ask` returns.  What httpx and the package raise becomes a NoAnswerError."""
        import httpx

        try:
            found = ask()
        except NoAnswerError:
            self._answered = True
            raise
        except httpx.ConnectTimeout:
            raise NoAnswerError("transport", f"no connection within {CONNECT:g} s", gone=True) from None
        except httpx.TimeoutException as error:
            seconds = error.request.extensions["timeout"]["read"]
            message = f"no answer within {seconds:g} s"
            raise NoAnswerError("transport", message, late=True, gone=not self._answered) from None
        except (httpx.TransportError, ConnectionError) as error:  # the package raises ConnectionError
            again = self._answered and not isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol)
            gone = not self._answered or isinstance(error, httpx.ConnectError | ConnectionError)
            raise NoAnswerError("transport", str(error) or type(error).__name__, again=again, gone=gone) from None
        except (ValueError, TypeError) as error:  # not JSON, or not the fields that the package expects
            reason = " ".join(str(error).split())[:120]
            raise NoAnswerError("server", f"this is not an answer of Ollama's: {reason}", 200) from None
        self._answered = True
        return found

    @contextmanager
    def _errors(self, what: str, known: Mapping[int, str] | None = None, instead: str = "") -> Iterator[None]:
        """A NoAnswerError as one line for the user; `known`: HTTP status -> what it means here, and the cure."""
        try:
            yield
        except NoAnswerError as error:
            if error.gone:
                raise UserError(f"no Ollama answers at {self.url} ({error}); {START}{instead}") from None
            cure = "wait until it is idle" if error.status == 503 else "look into its log"
            text = (known or {}).get(error.status, f"{what}: {error}; {cure} and run again")
            raise UserError(f"Ollama at {self.url} {text}") from None


def _data(response: Any) -> dict[str, Any] | None:
    """A response's JSON object; None when its body is something else.  Raises NoAnswerError when it is an error."""
    response.read()
    try:
        data = response.json()
    except ValueError:
        data = None
    error = data.get("error") if isinstance(data, dict) else None
    if response.is_success and error is None:
        return data if isinstance(data, dict) else None
    text = error if isinstance(error, str) else json.dumps(error) if error else response.text[:120]
    status = response.status_code
    raise NoAnswerError("server", f"HTTP {status}: {text or 'an empty body'}", status, again=status == 503)


def weights_digest(shown: dict[str, Any]) -> str:
    """The sha256 of the served GGUF, from the Modelfile in /api/show (`FROM .../sha256-<hex>`)."""
    found = re.search(r"^FROM .*sha256[-:]([0-9a-f]{64})", str(shown.get("modelfile", "")), re.MULTILINE)
    return found.group(1) if found else ""
