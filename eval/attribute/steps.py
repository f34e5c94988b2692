"""Deployment -> its steps in order: each a backend that is asked, or left out with the reason.

Every step is sent the same options: the parameters of model/ (else of model-f16/), temperature 0.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from contract.base import Base
from contract.contract import Contract
from eval.attribute.deployment import F16, TORCH, Deployment, run_stage
from models.answers import Answer, Backend, Request
from models.embedded import first_gguf, open_gguf
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from models.torch_model import answers_memory, available_memory, open_torch
from plumbing.errors import UserError

Open = Callable[[], AbstractContextManager[Backend]]


@dataclass(frozen=True)
class Step:
    name: str
    open: Open | None  # None: left out
    missing: str = ""  # why


@contextmanager
def open_steps(deployment: Deployment, host: str, model: str | None) -> Iterator[list[Step]]:
    """All steps, those left out among them.

    Without `model` the run's own is registered at `host`, under a name that is deleted afterwards.
    """
    manifest = deployment.manifests.get("model")
    quantised = manifest["settings"]["type"] if manifest else "quantised"
    steps = [*_torch_steps(deployment), _gguf_step(deployment, "f16 GGUF", F16)]
    if quantised != "f16":
        steps.append(_gguf_step(deployment, f"{quantised} GGUF", "model"))
    names = (f"{quantised}, Ollama", "Ollama, JSON Schema")
    server = Server(host)
    missing = _no_ollama(deployment, server, model)
    if missing:
        yield steps + [Step(name, None, missing) for name in names]
        return
    with _registered(deployment, server, model) as name:
        formed = partial(open_formed, deployment, host, name)
        yield [*steps, Step(names[0], partial(open_ollama, server, name, deployment.options)), Step(names[1], formed)]


def _torch_steps(deployment: Deployment) -> list[Step]:
    missing, base = deployment.missing.get(TORCH, ""), deployment.base_folder
    if not missing:
        needed, available = answers_memory(base), available_memory()
        if needed > available:
            missing = f"needs {needed / 1e6:,.0f} MB of memory, {available / 1e6:,.0f} MB are available"
    adapter = deployment.folders.get("adapter")
    places = {"base, torch": None} | ({"adapter, torch": adapter} if adapter or missing else {})
    return [
        Step(name, None, missing)
        if missing
        else Step(name, partial(open_torch, base, place, deployment.onto, deployment.served()))
        for name, place in places.items()
    ]


def _gguf_step(deployment: Deployment, step: str, what: str) -> Step:
    if what == F16 and F16 in deployment.missing:
        return Step(step, None, deployment.missing[F16])
    if what == "model" and "model" not in deployment.folders:
        return Step(step, None, f"{deployment.run / 'model'}: no such folder; `python -m quantize` makes it")
    if importlib.util.find_spec("llama_cpp") is None:
        return Step(step, None, "needs llama-cpp-python; `make setup` installs it")
    path = deployment.f16 if what == F16 else first_gguf(deployment.folders["model"])
    return Step(step, partial(open_gguf, path, deployment.options))


def _no_ollama(deployment: Deployment, server: Server, model: str | None) -> str:
    try:
        server.check()
    except UserError as error:
        return str(error)
    there = model or "model" in deployment.folders
    return "" if there else f"{deployment.run / 'model'}: no such folder, and --model names no registered model"


@contextmanager
def _registered(deployment: Deployment, server: Server, model: str | None) -> Iterator[str]:
    """The name of the registered model; a model that is registered here is deleted at the end.

    Raises UserError with the registration's own line.
    """
    if model:
        server.show(model)
        yield model
        return
    name = f"attribute-{os.getpid()}:temporary"
    try:
        run_stage("quantize.register", deployment.folders["model"].resolve(), name, "--host", server.url)
        yield name
    finally:
        server.delete(name)


@contextmanager
def open_formed(deployment: Deployment, host: str, model: str) -> Iterator[Backend]:
    """The server holds each answer to the contract's JSON Schema; the record is then written as the contract's text.

    An answer that is not a valid record (broken off, outside a section's bounds) stays as it came; pins count the others.
    """
    written = 0
    schema = deployment.contract.json_schema()
    with open_ollama(Server(host), model, deployment.options, schema) as backend:

        def ask(request: Request) -> Answer:
            nonlocal written
            answer = backend.ask(request)
            text = None if answer.error_kind else response_of(deployment.contract, deployment.base, answer.text)
            written += text is not None
            return answer if text is None else replace(answer, text=text)

        yield replace(backend, ask=ask, pins=lambda: backend.pins() | {"valid_records": written})


def response_of(contract: Contract, base: Base, text: str) -> str | None:
    """The response of a record in JSON, as a model generates it, without the stop; None if the record is not valid."""
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            return None
        return base.completion(contract.write(record)).removesuffix(base.stop)
    except (ValueError, UserError):  # not JSON; not a value of its section; contains the stop
        return None
