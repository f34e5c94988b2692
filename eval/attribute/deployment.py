"""A run's folder or a model folder -> Deployment: the models in it, and what cannot be measured."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.base import Base, load_base
from contract.contract import Contract, load_contract
from models.base_folder import REPOSITORY, base_digest, find_base_folder
from models.embedded import Served, read_served
from models.options import own_options
from models.torch_model import missing_packages
from plumbing.errors import UserError
from plumbing.handover import MANIFEST, Manifest, check_outputs, read_manifest

STAGES = {"adapter": "adapter", "model-f16": "model", "model": "model"}  # folder of a run -> the stage that makes it
ABSENT: Any = {"settings": {}, "outputs": {}}
ADAPTER, F16, TORCH = "adapter_model.safetensors", "model.f16.gguf", "torch"


@dataclass(frozen=True)
class Deployment:
    run: Path
    contract: Contract
    base: Base
    folders: dict[str, Path]  # those of STAGES that are there
    manifests: dict[str, Manifest]  # of these folders
    options: dict[str, Any]  # sent with every request of every step
    base_folder: Path  # its weights; Path() where they were not found
    missing: dict[str, str]  # TORCH, F16: why it cannot be measured

    @property
    def weights(self) -> dict[str, str]:
        """The GGUFs of model/ with their sha256."""
        outputs = self.manifests.get("model", ABSENT)["outputs"]
        return {name: digest for name, digest in outputs.items() if re.fullmatch(r"model\.\w+\.gguf", name)}

    @property
    def f16_name(self) -> str:
        """The folder that holds the f16 GGUF, unless that is missing."""
        return "model" if F16 in self.weights or "model-f16" not in self.folders else "model-f16"

    @property
    def f16(self) -> Path:
        """Raises UserError when there is none."""
        self.need(F16)
        return self.folders[self.f16_name] / F16

    @property
    def onto(self) -> str:
        """The base that the f16 GGUF was merged onto: 16bit or nf4."""
        return str(self.manifests.get(self.f16_name, ABSENT)["settings"].get("onto", "16bit"))

    @property
    def trained_in_4_bits(self) -> bool:
        return bool(self.manifests.get("adapter", ABSENT)["settings"].get("load_in_4bit"))

    def need(self, what: str) -> None:
        if what in self.missing:
            raise UserError(self.missing[what])

    def served(self) -> Served:
        """How the model is prompted in every step."""
        return Served(self.base, self.contract.system_prompt(), dict(self.options))


def read_deployment(
    folder: Path, contract: Contract, adapter: str | None = None, base_folder: str | None = None
) -> Deployment:
    """`folder` holds adapter/, model-f16/ and model/, or is a model folder with adapter/ beside it.

    Raises UserError when it holds none of them, or a folder is of another task than the dataset's `contract`, or
    `adapter` or `base_folder` is not what the model was made from.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run; `make demo` makes one, such as artifacts/terminology/tiny")
    alone = (folder / MANIFEST).is_file()
    run = folder.parent if alone else folder
    paths = {"adapter": Path(adapter) if adapter else run / "adapter"}
    paths |= {"model": folder} if alone else {name: run / name for name in ("model-f16", "model")}
    if adapter and not paths["adapter"].is_dir():
        raise UserError(f"{adapter}: no such adapter folder; `python -m finetune` makes one")
    manifests = {name: read_manifest(path, STAGES[name]) for name, path in paths.items() if path.is_dir()}
    if not manifests:
        raise UserError(f"{folder}: none of {', '.join(STAGES)} in it; name the folder that holds them")
    if manifests.get("model", ABSENT)["settings"].get("base_only"):  # made without the adapter
        manifests.pop("adapter", None)
    _check(paths, manifests, contract, adapter)
    base = load_base(paths[next(iter(manifests))] / "base.toml")
    own = [read_served(paths[name]).options for name in ("model", "model-f16") if name in manifests]
    options = [*own, own_options({"stop": (base.stop,)}, base.context_length)][0]
    place, missing = _find_base(base, paths, manifests, base_folder)
    folders = {name: paths[name] for name in manifests}
    return Deployment(run, contract, base, folders, manifests, options, place, {TORCH: missing} if missing else {})


def _check(paths: dict[str, Path], manifests: dict[str, Manifest], contract: Contract, adapter: str | None) -> None:
    for name in manifests:
        found = load_contract(paths[name] / "task.toml")
        if found != contract:
            raise UserError(
                f"{paths[name]}: made for the task '{found.name}', the dataset is for '{contract.name}' or another "
                "version of it; name the dataset that it was trained on with --data"
            )
    if "adapter" in manifests:
        check_outputs(paths["adapter"], manifests["adapter"])
    if adapter and other_adapter(manifests, "model"):
        raise UserError(f"{adapter}: not the adapter that {paths['model']} was made from; name that with --adapter DIR")
    f16 = manifests.get("model-f16")
    if f16 and F16 not in f16["outputs"]:
        raise UserError(
            f"{paths['model-f16']}: its type is {f16['settings']['type']}, expected f16; "
            "`python -m quantize` with --type f16 makes it"
        )


def other_adapter(manifests: dict[str, Manifest], name: str) -> bool:
    """Whether the model folder `name` was made from another adapter than the one that is there now."""
    if not {"adapter", name} <= manifests.keys():
        return False
    return manifests[name]["inputs"].get("adapter") not in (None, manifests["adapter"]["outputs"].get(ADAPTER))


def _find_base(
    base: Base, paths: dict[str, Path], manifests: dict[str, Manifest], named: str | None
) -> tuple[Path, str]:
    """The base's folder, and why torch cannot run on it; "" when it can.

    Raises UserError when the base that was `named` is not the one that the adapter was trained on.
    """
    untuned = manifests.get("model", ABSENT)["settings"].get("base_only")
    source = "model" if untuned else "adapter"
    if source not in manifests:
        return Path(), f"{paths[source]}: no such folder"
    trained = manifests[source]["settings"].get("base_folder")
    try:
        folder = find_base_folder(base, named or (trained if trained and Path(trained).is_dir() else None))
        if base_digest(folder) != manifests[source]["inputs"].get("base"):
            raise UserError(f"{folder}: not the base that {paths[source]} was made from; name that with --base DIR")
    except UserError as error:
        if named:
            raise
        return Path(), str(error)
    return folder, missing_packages()


@contextmanager
def with_f16(deployment: Deployment) -> Iterator[Deployment]:
    """The deployment with an f16 GGUF: its own, else one that is exported into a temporary folder."""
    if F16 in deployment.weights or "model-f16" in deployment.folders:
        yield deployment
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place) / "model-f16"
        try:
            _export_f16(deployment, folder)
            found = replace(
                deployment, folders=deployment.folders | {"model-f16": folder},
                manifests=deployment.manifests | {"model-f16": read_manifest(folder, "model")},
            )  # fmt: skip
        except UserError as error:
            found = replace(deployment, missing=deployment.missing | {F16: f"no {F16} to compare with: {error}"})
        yield found


def _export_f16(deployment: Deployment, out: Path) -> None:
    adapter = deployment.folders.get("adapter")
    if adapter is None:
        raise UserError("without an adapter it cannot be exported here; `python -m quantize` with --type f16 makes it")
    if other_adapter(deployment.manifests, "model"):
        raise UserError(f"{adapter}: not the adapter that {deployment.folders['model']} was made from; export again")
    print(f"exporting {F16}", file=sys.stderr, flush=True)
    base = ("--base", deployment.base_folder.resolve()) if deployment.base_folder != Path() else ()
    try:
        run_stage("quantize", adapter.resolve(), "--out", out, "--type", "f16", "--onto", deployment.onto, *base)
    except UserError as error:
        raise UserError(
            f"{error}; TMPDIR names another disk, --type f16 of `python -m quantize` keeps the file"
        ) from None


def run_stage(module: str, *arguments: object) -> None:
    """Run another stage as a user would.  Raises UserError with that stage's own error line."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"python -m {module} ended with exit code {done.returncode}"]
        raise UserError(lines[-1].removeprefix("error: "))
