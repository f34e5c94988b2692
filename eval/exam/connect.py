"""Command line -> the backend that it names: an Ollama or several, a GGUF in this process, recorded answers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from eval.exam.arguments import MODEL
from models.answers import Backend, open_replay
from plumbing.errors import UserError


def open_backend(args: argparse.Namespace, settings: Mapping[str, Any]) -> AbstractContextManager[Backend]:
    """The model that is measured."""
    if args.replay:
        return open_replay(Path(args.replay))
    if args.gguf:
        return _open_gguf(Path(args.gguf), args, settings)
    return _open_ollama(args.model or MODEL, args, settings)


def open_other(name: str, args: argparse.Namespace, settings: Mapping[str, Any]) -> AbstractContextManager[Backend]:
    """A model of --against: a report's folder, a GGUF, else a model of the same Ollama."""
    path = Path(name)
    if (path / "answers.jsonl").is_file() or path.suffix == ".jsonl":
        return open_replay(path / "answers.jsonl" if path.is_dir() else path)
    if path.suffix == ".gguf":
        return _open_gguf(path, args, settings)
    if path.is_dir():
        raise UserError(f"--against {name}: no report there (no answers.jsonl); name a report's folder or a model")
    return _open_ollama(name, args, settings)


def _open_gguf(path: Path, args: argparse.Namespace, settings: Mapping[str, Any]) -> AbstractContextManager[Backend]:
    from models.embedded import open_gguf

    if args.concurrency > 1:
        raise UserError("a GGUF answers one request at a time; leave --concurrency out, or let Ollama serve the model")
    return open_gguf(path, settings)


def _open_ollama(model: str, args: argparse.Namespace, settings: Mapping[str, Any]) -> AbstractContextManager[Backend]:
    from eval.exam.hosts import open_hosts
    from models.ollama_address import server_url
    from models.ollama_chat import open_ollama
    from models.ollama_server import Server

    hosts = args.host.split(",") if args.host else [None]
    if not all(host is None or host.strip() for host in hosts):
        raise UserError(f"--host {args.host}: an address between the commas is missing")
    urls = list(dict.fromkeys(map(server_url, hosts)))
    servers = [Server(url, args.timeout) for url in urls]
    return open_hosts(servers, model, settings) if len(servers) > 1 else open_ollama(servers[0], model, settings)
