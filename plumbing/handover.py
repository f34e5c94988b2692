"""The folders that stages hand to each other: each appears whole or not at all, with a manifest.json.

A stage writes into `new_folder(target)`; the folder gets its final name only when everything is in it.  Its manifest
has the sha256 of inputs and outputs, the resolved settings, versions, counts and time, so that a report can be traced:
report -> Ollama digest -> GGUF -> adapter -> dataset -> facts.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, TypedDict

from plumbing.errors import UserError

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
    """A temporary file beside `target`: renamed to it at the end, removed on any failure."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    partial = _beside(target, "partial")
    try:
        yield partial
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(target: Path, stage: str = "", keep_equal: bool = False) -> Iterator[Path]:
    """A temporary folder beside `target`: it replaces `target` at the end, and is removed on any failure.

    Only what `check_replaceable` accepts is replaced.  With `keep_equal` a folder of the same inputs, outputs and
    settings stays as it is, so that what was made from it does not become out of date.
    """
    target = _resolved(target)  # the folder behind a link is replaced, not the link
    _sweep(target)
    check_replaceable(target, stage)
    partial, old = _beside(target, "partial"), _beside(target, "old")
    partial.mkdir(parents=True)
    try:
        yield partial
        if keep_equal and _is_equal(partial, target):
            return
        if target.exists():
            os.replace(target, old)
        os.replace(partial, target)
    finally:
        if old.exists() and not target.exists():  # stopped between the two
            os.replace(old, target)
        for left in (old, partial):
            shutil.rmtree(left, ignore_errors=True)


def check_disk(out: Path, needed: int, cure: str = "name another --out") -> None:
    """Raises UserError when fewer than `needed` bytes are free where `out` will be."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{out}: needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; free some space or {cure}"
        )


def check_replaceable(target: Path, stage: str = "") -> None:
    """Raises UserError when `target` is a file, the current folder, or holds files that `stage` did not make."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{target}: is a file; name a folder with --out")
    if _resolved(target) in (Path.cwd(), *Path.cwd().parents):
        raise UserError(f"{target}: the folder you are in, or one above it; name another folder with --out")
    if not target.is_dir() or not any(target.iterdir()):
        return
    manifest = _table(target)
    maker = str(manifest.get("stage", ""))
    if not maker:
        raise UserError(f"{target}: holds other files and no {MANIFEST} of ours; name another folder with --out")
    if stage and maker != stage:
        raise UserError(f"{target}: holds what the stage '{maker}' made; name another folder with --out")
    others = _others(target, manifest)
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        cure = "move them, or name another --out"
        raise UserError(f"{target}: holds files that no stage of ours wrote ({shown}); {cure}")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError:  # links that lead to each other
        raise UserError(f"{path}: a link that leads back to itself; name another folder with --out") from None


def _table(folder: Path) -> dict[str, Any]:
    """The folder's manifest, unchecked; {} if there is none."""
    try:
        table = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def _others(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """The files of a folder that its manifest does not name; hidden ones and a run's checkpoints do not count."""
    named = manifest.get("outputs")
    if not isinstance(named, dict):
        return []
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    return sorted(name for name in found - named.keys() if not re.match(r"checkpoints/|(.*/)?\.", name))


def _is_equal(one: Path, other: Path) -> bool:
    """Whether both manifests are equal except for time and versions, and `other` matches its own manifest."""
    first, second = _table(one), _table(other)
    same = all(first[key] == second.get(key) for key in first.keys() - {"versions", "seconds"})
    return bool(first) and same and not _changed(other, first["outputs"])


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name}.{kind}.{os.getpid()}")


def _sweep(target: Path) -> None:
    """Remove what a killed process left, and put back an old folder that was moved away but not replaced."""
    name = re.compile(rf"\.{re.escape(target.name)}\.(partial|old)\.([0-9]+)")
    for left in sorted(target.parent.iterdir()) if target.parent.is_dir() else []:
        match = name.fullmatch(left.name)
        if not match or _alive(int(match[2])):
            continue
        if match[1] == "old" and not target.exists():
            os.replace(left, target)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():  # left by an earlier process with the same number, as in containers: this one has just begun
        return False
    if os.name == "nt":  # os.kill would end the process there
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_manifest(
    folder: Path,
    stage: str,
    inputs: dict[str, str],
    settings: dict[str, Any],
    counts: dict[str, Any],
    packages: tuple[str, ...] = (),
    started: float | None = None,
    digests: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write `manifest.json` for every file that is in `folder` now.  `started` is a time.monotonic() value.

    `digests`: the sha256 of files that were hashed while they were written, so that they are not read again.
    """
    outputs = {
        name: digests.get(name) or sha256(folder / name)
        for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if name != MANIFEST and not name.startswith("checkpoints/")  # belongs to the run, which deletes it at its end
    }
    manifest = Manifest(
        stage=stage,
        inputs=inputs,
        outputs=outputs,
        settings=settings,
        counts=counts,
        versions={"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in packages},
        seconds=round(time.monotonic() - started, 1) if started is not None else 0.0,
    )
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path, stage: str) -> Manifest:
    """The manifest of a folder that `stage` made.  Raises UserError when there is none, or another stage made it."""
    path = folder / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
        if not _is_manifest(manifest):
            raise ValueError("another kind of manifest")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: no {MANIFEST} there: not a finished {stage} folder; run its stage first") from None
    except ValueError:
        raise UserError(f"{path}: not a manifest of this project; make the folder again") from None
    if manifest["stage"] != stage:
        raise UserError(f"{folder}: made by the stage '{manifest['stage']}', expected what the stage '{stage}' makes")
    return manifest


def _is_manifest(table: object) -> bool:
    """Whether it has every field with its type, and names no file outside its folder."""
    if not isinstance(table, dict) or Manifest.__annotations__.keys() - table.keys():
        return False
    tables = ("inputs", "outputs", "settings", "counts", "versions")
    if not isinstance(table["stage"], str) or not all(isinstance(table[name], dict) for name in tables):
        return False
    return not any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in table["outputs"])


def check_outputs(folder: Path, manifest: Manifest) -> None:
    """Raises UserError with each file that is missing or is not what its stage wrote."""
    if changed := _changed(folder, manifest["outputs"]):
        raise UserError(f"{folder}: changed since it was made: {', '.join(changed)}; make the folder again")


def _changed(folder: Path, outputs: dict[str, str]) -> list[str]:
    """The files that are missing or have another sha256."""
    paths = {folder / name: name for name in outputs}
    return [name for path, name in paths.items() if not path.is_file() or sha256(path) != outputs[name]]
