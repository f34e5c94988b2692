"""One chat with the teacher, a model of an Ollama -> an answer, or NoAnswerError after the last try.

What may succeed later (refused, closed, reset, busy, a crashed runner) is tried again after a pause.  What cannot (no
such model, a refused request) is a UserError at once.
"""

from __future__ import annotations

import threading
from typing import Any

from models.answers import REPEATED, Answer
from models.ollama_chat import LOOPED, finished
from models.ollama_server import NoAnswerError, Server
from plumbing.errors import UserError

PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try: a restarted server needs about ten
TOO_LONG = "too long"  # a done_reason of ours, beside REPEATED and Ollama's stop and length: the prompt does not fit
_PASSING = (0, 200, 429, 500, 502, 503, 504)  # HTTP statuses; 0: no answer, 200: an answer that is not whole


class StoppedError(Exception):
    """The run has ended while this call waited."""


class TeacherServer(Server):
    """`stop`, once set, ends every wait."""

    def __init__(self, url: str, timeout: float, pauses: tuple[float, ...], stop: threading.Event) -> None:
        super().__init__(url, timeout, pauses=())
        self._waits, self.stop = (*pauses, None), stop

    def pins(self, model: str) -> dict[str, str]:
        """The server's version and the digest of the model's manifest: weights, template, system, parameters.

        Raises UserError when there is no Ollama, or no such model.
        """
        version, digest = self.check(), self.digest(model)
        if not digest:
            raise self._no_model(model)
        return {"model": model, "digest": digest, "ollama": version}

    def chat(self, body: dict[str, Any]) -> Answer:
        """The answer to POST /api/chat.  Raises NoAnswerError after the last try, StoppedError, UserError."""
        for number, pause in enumerate(self._waits, 1):
            try:
                return Answer(*finished(self.call("/api/chat", body)))
            except NoAnswerError as error:
                if LOOPED in str(error):
                    return Answer("", REPEATED)
                if "n_prompt_tokens" in str(error):
                    return Answer("", TOO_LONG)
                if error.status == 404:
                    raise self._no_model(str(body["model"])) from None
                if error.status not in _PASSING:
                    raise UserError(f"Ollama at {self.url} refuses the request: {error}") from None
                if pause is None or (error.late and number > 1):  # a late answer gets one more try
                    tries = f" ({number} tries)" if number > 1 else ""
                    raise NoAnswerError(error.kind, f"{error}{tries}") from None
            if self.stop.wait(pause):
                raise StoppedError
        raise AssertionError("the last try returns or raises")

    def _no_model(self, model: str) -> UserError:
        cure = f"`ollama pull {model}` fetches it, `python -m quantize.register MODEL_DIR {model}` registers your own"
        return UserError(f"Ollama at {self.url} has no model '{model}'; {cure}")
