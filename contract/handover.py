"""What every folder handed from stage to stage has in common: it appears whole or not at all, and explains itself.

A stage writes into `new_folder(target)`; the folder takes its final name only when everything is in it.  Its
`manifest.json` names inputs and outputs by sha256, the resolved settings, versions, counts and time, so that a report
can be traced: report -> Ollama digest -> GGUF -> adapter -> dataset -> facts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from contract.errors import UserError

MANIFEST = "manifest.json"


class Manifest(TypedDict):
    stage: str
    inputs: dict[str, str]  # what it was made from -> sha256
    outputs: dict[str, str]  # file in the folder -> sha256
    settings: dict[str, Any]
    counts: dict[str, Any]
    versions: dict[str, str]
    seconds: float


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`; renamed to it at the end, removed on any failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial.{os.getpid()}")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; swapped in for it at the end, removed on any failure.

    Only a folder that holds a manifest, or nothing, is ever replaced.
    """
    check_replaceable(target)
    _sweep(target)
    partial = target.with_name(f".{target.name}.partial.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        yield partial
        old = target.with_name(f".{target.name}.old.{os.getpid()}")
        if target.exists():
            os.replace(target, old)
        os.replace(partial, target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(target: Path) -> None:
    """Raises UserError when `target` is a file or a folder that no stage of ours made."""
    if target.is_file():
        raise UserError(f"{target}: is a file; name a folder with --out")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise UserError(f"{target}: holds other files and no {MANIFEST}; name another folder with --out")


def _sweep(target: Path) -> None:
    """Remove what a killed process left behind, and put back an old folder whose replacement never came."""
    for left in target.parent.glob(f".{target.name}.*"):
        kind, _, pid = left.name.removeprefix(f".{target.name}.").partition(".")
        if kind not in ("partial", "old") or not pid.isdigit() or _alive(int(pid)):
            continue
        if kind == "old" and not target.exists():
            os.replace(left, target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_manifest(
    folder: Path,
    stage: str,
    inputs: dict[str, str],
    settings: dict[str, Any],
    counts: dict[str, Any],
    packages: tuple[str, ...] = (),
    started: float | None = None,
) -> None:
    """Write `manifest.json` over every file that is in `folder` now.  `started` is a time.monotonic() value."""
    outputs = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and "checkpoints" not in path.parts
    }
    manifest = Manifest(
        stage=stage,
        inputs=inputs,
        outputs=outputs,
        settings=settings,
        counts=counts,
        versions={"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages},
        seconds=round(time.monotonic() - started, 1) if started is not None else 0.0,
    )
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path, stage: str) -> Manifest:
    """The manifest of a folder that `stage` made.  Raises UserError when there is none or it is another stage's."""
    path = folder / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["stage"]
    except FileNotFoundError:
        raise UserError(f"{folder}: no {MANIFEST} there: not a finished {stage} folder") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a manifest of this project; make the folder again") from None
    if found != stage:
        raise UserError(f"{folder}: is a {found} folder, wanted a {stage} folder")
    return manifest


def check_outputs(folder: Path, manifest: Manifest) -> None:
    """Raises UserError naming each file that is missing or no longer what its stage wrote."""
    changed = [
        name for name, digest in manifest["outputs"].items()
        if not (folder / name).is_file() or sha256(folder / name) != digest
    ]
    if changed:
        raise UserError(f"{folder}: changed since it was made: {', '.join(changed)}; make the folder again")
