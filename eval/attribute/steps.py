"""A run's folder -> the steps of its deployment, in order: each a backend, or named with the reason it is left out.

A run's folder holds what one adapter became: adapter/, model-f16/ and model/ (its quantised type).  Every step is sent
the same options: the parameters of model/ (else of model-f16/), temperature 0.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from contract.base import Base, load_base
from contract.contract import Contract, load_contract
from models.answers import Answer, Backend, Request
from models.base_folder import REPOSITORY, base_digest, find_base_folder
from models.embedded import Served, open_gguf, read_served
from models.ollama_chat import open_ollama
from models.ollama_server import Server
from models.options import own_options
from models.torch_model import missing_packages, open_torch
from plumbing.errors import UserError
from plumbing.handover import Manifest, check_outputs, read_manifest

STAGES = {"adapter": "adapter", "model-f16": "model", "model": "model"}  # folder of a run -> the stage that makes it
TORCH_STEPS = ("base, torch", "adapter, torch")
Open = Callable[[], AbstractContextManager[Backend]]


@dataclass(frozen=True)
class Deployment:
    folder: Path
    contract: Contract
    base: Base
    manifests: dict[str, Manifest]  # of the folders that are there
    options: dict[str, Any]  # sent with every request of every step

    def gguf(self, name: str) -> Path:
        return self.folder / name / f"model.{self.kind(name)}.gguf"

    def kind(self, name: str) -> str:
        return str(self.manifests[name]["settings"]["type"])

    def served(self, name: str) -> Served:
        """How the folder's model is prompted, with the run's options."""
        base = load_base(self.folder / name / "base.toml")
        return Served(base, load_contract(self.folder / name / "task.toml").system_prompt(), dict(self.options))


@dataclass(frozen=True)
class Step:
    name: str
    open: Open | None  # None: left out
    missing: str = ""  # why


def read_deployment(folder: Path, contract: Contract) -> Deployment:
    """The run and what it holds.  Raises UserError when it holds nothing of ours, or another task than the dataset's."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; `make demo` makes one, such as artifacts/terminology/tiny")
    manifests = {n: read_manifest(folder / n, stage) for n, stage in STAGES.items() if (folder / n).is_dir()}
    if not manifests:
        raise UserError(f"{folder}: none of {', '.join(STAGES)} in it; name the folder that holds them")
    for name in manifests:
        found = load_contract(folder / name / "task.toml")
        if found != contract:
            raise UserError(
                f"{folder / name}: made for the task '{found.name}', the dataset is for '{contract.name}' or another "
                "version of it; name the dataset that it was trained on with --data"
            )
    if "adapter" in manifests:
        check_outputs(folder / "adapter", manifests["adapter"])
    kind = str(manifests.get("model-f16", {}).get("settings", {}).get("type", "f16"))
    if kind != "f16":
        raise UserError(f"{folder / 'model-f16'}: its type is {kind}, wanted f16; `python -m quantize` with --type f16")
    base = load_base(folder / next(iter(manifests)) / "base.toml")
    return Deployment(folder, contract, base, manifests, _options(folder, base, manifests))


def _options(folder: Path, base: Base, manifests: dict[str, Manifest]) -> dict[str, Any]:
    for name in ("model", "model-f16"):
        if name in manifests:
            return read_served(folder / name).options
    return own_options({"stop": (base.stop,)}, base.context_length)


@contextmanager
def open_steps(deployment: Deployment, host: str, model: str | None) -> Iterator[list[Step]]:
    """All six steps, those left out among them.

    Without `model` the run's own is registered at `host`, under a name that is deleted afterwards.
    """
    quantised = deployment.kind("model") if "model" in deployment.manifests else "quantised"
    quantised = "model/, f16" if quantised == "f16" else quantised  # or two steps would have one name
    steps = [
        *_torch_steps(deployment),
        _gguf_step(deployment, "f16 GGUF", "model-f16"),
        _gguf_step(deployment, f"{quantised} GGUF", "model"),
    ]
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
    missing = (
        missing_packages() if "adapter" in deployment.manifests else f"{deployment.folder / 'adapter'}: no such folder"
    )
    if not missing:
        try:
            base = base_folder(deployment)
        except UserError as error:
            missing = str(error)
    if missing:
        return [Step(name, None, missing) for name in TORCH_STEPS]
    served = deployment.served("adapter")
    return [
        Step(TORCH_STEPS[0], partial(open_torch, base, None, served)),
        Step(TORCH_STEPS[1], partial(open_torch, base, deployment.folder / "adapter", served)),
    ]


def base_folder(deployment: Deployment) -> Path:
    """Where the adapter's base lies.  Raises UserError when it cannot be had, or is not the one that was trained on."""
    manifest = deployment.manifests["adapter"]
    trained = manifest["settings"].get("base_folder")
    folder = find_base_folder(deployment.base, trained if trained and Path(trained).is_dir() else None)
    if base_digest(folder) != manifest["inputs"].get("base"):
        raise UserError(f"{folder}: not the base that {deployment.folder / 'adapter'} was trained on")
    return folder


def _gguf_step(deployment: Deployment, step: str, name: str) -> Step:
    if name not in deployment.manifests:
        return Step(step, None, f"{deployment.folder / name}: no such folder; `python -m quantize` makes it")
    if importlib.util.find_spec("llama_cpp") is None:
        return Step(step, None, "needs llama-cpp-python; `make setup` installs it")
    return Step(step, partial(open_gguf, deployment.gguf(name), deployment.options))


def _no_ollama(deployment: Deployment, server: Server, model: str | None) -> str:
    try:
        server.check()
    except UserError as error:
        return str(error)
    there = model or "model" in deployment.manifests
    return "" if there else f"{deployment.folder / 'model'}: no such folder, and no --model names what is registered"


@contextmanager
def _registered(deployment: Deployment, server: Server, model: str | None) -> Iterator[str]:
    """The registered model's name; one that is registered here is deleted at the end.

    Raises UserError with the registration's own line.
    """
    if model:
        server.show(model)
        yield model
        return
    name = f"attribute-{os.getpid()}:temporary"
    command = [sys.executable, "-m", "quantize.register", str((deployment.folder / "model").resolve()), name]
    try:
        done = subprocess.run(
            [*command, "--host", server.url], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise UserError((done.stderr.strip().splitlines() or ["no reason told"])[-1].removeprefix("error: "))
        yield name
    finally:
        server.delete(name)


@contextmanager
def open_formed(deployment: Deployment, host: str, model: str) -> Iterator[Backend]:
    """Answers held to the contract's JSON Schema by the server and then written out as the contract's text.

    One that is no valid record (broken off, out of a section's bounds) stays the text that came; pins count the others.
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
    """The response of a record that came as JSON, as a model generates it (without the stop); None for no valid record."""
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            return None
        return base.completion(contract.write(record)).removesuffix(base.stop)
    except (ValueError, UserError):  # no JSON; no value of its section; holds the stop
        return None
