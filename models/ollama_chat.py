"""A registered model of a running Ollama -> a backend: request in, answer out.

with open_ollama(Server(server_url(None)), "medical-mistral") as backend:
    backend.ask(Request("1", ({"role": "user", "content": "Explain the medical term: uremia"},)))
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from models.answers import REPEATED, Answer, Backend, ReplacedError, Request, failed, spelled
from models.modelfile import shown_parameters
from models.ollama_server import NoAnswerError, Server, weights_digest
from models.options import own_options
from plumbing.errors import UserError

# Ollama ends a generation after about 100 equal chunks in a row.  The model caused this, so it counts as a failed
# answer, not as an error.
LOOPED = "token repeat limit reached"


@contextmanager
def open_ollama(
    server: Server, model: str, settings: Mapping[str, Any] | None = None, schema: dict[str, Any] | None = None
) -> Iterator[Backend]:
    """Chat by the native API.  `settings` override the model's own parameters; `schema` holds answers to a JSON Schema.

    Raises UserError when the model cannot be used, and from `pins` when it is replaced during the run.
    """
    version, shown = server.check(", or judge by `eval.adherence --gguf FILE`"), server.show(model)
    digest, details = server.digest(model), shown.get("details", {})
    if not digest:  # without it nobody could tell which weights an answer is of
        raise UserError(f"Ollama at {server.url} does not list '{model}'; name it as `ollama list` does")
    options = own_options(shown_parameters(str(shown.get("parameters") or "")), _trained_context(shown))
    options |= settings or {}
    # A prompt or an answer that is too long for the context is an error, not silently cut.
    same = {"model": model, "stream": False, "keep_alive": "10m", "truncate": False, "shift": False}
    same |= {"format": schema} if schema else {}

    def pins() -> dict[str, Any]:
        if server.digest(model) != digest:
            raise ReplacedError(f"'{model}' was registered again while it was being measured; run again")
        return {
            "ollama": version, "digest": digest, "weights": weights_digest(shown), "url": server.url,
            "num_ctx": server.context_length(digest), "quantisation": details.get("quantization_level"),
            **{name: _sha256(shown.get(name)) for name in ("template", "system", "parameters")},
        }  # fmt: skip

    def ask(request: Request) -> Answer:
        sent = {**options, **request.options}
        return _chat(server, {**same, "messages": list(request.messages), "options": sent})

    identity = f"ollama {version} {digest}"  # the digest is of weights, template, system text and parameters
    yield Backend("ollama", model, ask, pins, identity, options)


def finished(data: dict[str, Any]) -> tuple[str, str]:
    """Text and done_reason of a chat's answer.

    Raises NoAnswerError unless it is whole: `done: true`, a text, and a reason that ends a generation.
    """
    message, reason = data.get("message"), data.get("done_reason")
    text = message.get("content") if isinstance(message, dict) else None
    if data.get("done") is not True or not isinstance(text, str) or reason not in ("stop", "length"):
        raise NoAnswerError("server", f"unfinished answer: done {data.get('done')}, done_reason {reason}", 200)
    return text, reason


def _chat(server: Server, body: dict[str, Any]) -> Answer:
    started = time.monotonic()
    num_ctx = body["options"]["num_ctx"]
    try:
        data = server.call("/api/chat", body)
        text, reason = finished(data)
        prompt = data.get("prompt_eval_count")
        if not isinstance(prompt, int) or not 0 < prompt < num_ctx:
            expected = f"expected 1 to {num_ctx - 1} (num_ctx {num_ctx})"
            raise NoAnswerError("server", f"prompt_eval_count is {prompt}, {expected}")
    except NoAnswerError as error:
        seconds = time.monotonic() - started
        if LOOPED in str(error):
            return Answer("", REPEATED, seconds=seconds)
        return failed(error.kind, str(error), seconds)
    return Answer(spelled(text), reason, prompt, data.get("eval_count"), time.monotonic() - started, _waited(data))


def _waited(data: dict[str, Any]) -> float | None:
    """Seconds in the server's queue: the total less loading and evaluating.  None when there is no total."""
    total = data.get("total_duration")
    if not isinstance(total, int):
        return None
    worked = sum(data.get(f"{part}_duration") or 0 for part in ("load", "prompt_eval", "eval"))
    return round(max(0, total - worked) / 1e9, 4)


def _trained_context(shown: dict[str, Any]) -> int | None:
    info = shown.get("model_info") or {}
    return next((value for key, value in info.items() if key.endswith(".context_length")), None)


def _sha256(text: Any) -> str:
    return hashlib.sha256(str(text or "").encode()).hexdigest()
