"""Settings -> the backend that answers: an Ollama, a GGUF in this process, or recorded answers."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from eval.settings import Settings
from models.answers import Backend, open_replay
from plumbing.errors import UserError


def open_backend(settings: Settings) -> AbstractContextManager[Backend]:
    """The model that is measured."""
    if settings.replay:
        return open_replay(settings.replay)
    if settings.gguf:
        return _open_gguf(settings.gguf, settings)
    return _open_ollama(settings.model, settings)


def open_other(name: str, settings: Settings) -> AbstractContextManager[Backend]:
    """A model of --against: a report folder, a GGUF, or a model of the same Ollama."""
    path = Path(name)
    if (path / "answers.jsonl").is_file() or path.suffix == ".jsonl":
        if settings.against_shots:
            raise UserError(f"--against {name}: recorded answers cannot be asked again with --against-shots")
        return open_replay(path / "answers.jsonl" if path.is_dir() else path)
    if path.suffix == ".gguf":
        return _open_gguf(path, settings)
    if path.is_dir():
        raise UserError(f"--against {name}: no report there (no answers.jsonl); name a report folder or a model")
    return _open_ollama(name, settings)


def _open_gguf(path: Path, settings: Settings) -> AbstractContextManager[Backend]:
    from models.embedded import open_gguf

    if settings.concurrency > 1:
        raise UserError("a GGUF answers one request at a time; leave --concurrency out, or let Ollama serve the model")
    return open_gguf(path, settings.options)


def _open_ollama(model: str, settings: Settings) -> AbstractContextManager[Backend]:
    from models.ollama_address import server_url
    from models.ollama_chat import open_ollama
    from models.ollama_server import Server

    return open_ollama(Server(server_url(settings.host), settings.timeout), model, settings.options)
