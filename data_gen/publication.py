"""A finished dataset folder -> a datasets.DatasetDict on the disk, or a repository of the Hub."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.example import SPLITS
from data_gen.folder import digest
from data_gen.leaks.certificate import check
from data_gen.leaks.certification import certify_folder
from plumbing import hub
from plumbing.errors import UserError
from plumbing.handover import (
    MANIFEST,
    Manifest,
    check_outputs,
    check_replaceable,
    new_folder,
    read_manifest,
    write_manifest,
)  # fmt: skip
from plumbing.jsonl import read_lines

if TYPE_CHECKING:
    import datasets

STAGE = "save_to_disk"  # of the folder that save_to_disk makes
CERTIFICATE = "certificate.json"


def publish(folder: Path, target: str | None, repo: str | None, private: bool) -> None:
    """Save to the folder `target`, push to the repository `repo`, or both; prints where the dataset is then."""
    if repo:
        hub.check_push(repo)
    if target:
        save_to_disk(folder, Path(target))
        print(f"{target}: datasets.load_from_disk({target!r}) reads it")
    if repo:
        for name in left_out(folder):
            print(f"left out, as {MANIFEST} does not name it: {name}")
        print(push(folder, repo, private))


def check_finished(folder: Path) -> Manifest:
    """The folder's manifest.  Raises UserError unless every file is as data_gen wrote it and the splits share nothing.

    The certificate is made again, because a manifest can be edited.
    """
    manifest = read_manifest(folder, "dataset")
    check_outputs(folder, manifest)
    needed = {CERTIFICATE, "README.md", "task.toml", "concepts.json", *(f"{name}.jsonl" for name in SPLITS)}
    missing = needed - manifest["outputs"].keys()
    if missing:
        raise UserError(
            f"{folder}: {', '.join(sorted(missing))} {'is' if len(missing) == 1 else 'are'} missing: "
            "make the dataset again, then publish it"
        )
    certificate = certify_folder(folder)
    check(certificate)
    if certificate.to_json() != (folder / CERTIFICATE).read_text(encoding="utf-8"):
        raise UserError(f"{folder / CERTIFICATE}: not the certificate of these rows: make the dataset again")
    return manifest


def left_out(folder: Path) -> list[str]:
    """The files below the folder that its manifest does not name: they are never published."""
    named = {MANIFEST, *read_manifest(folder, "dataset")["outputs"]}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return sorted(found - named)


def features(folder: Path) -> datasets.Features:
    """The columns' types, as the folder's card lists them."""
    from datasets.info import DatasetInfosDict

    return DatasetInfosDict.from_directory(str(folder))["default"].features


def save_to_disk(folder: Path, target: Path) -> None:
    """Write `datasets.load_from_disk(target)`, with card, licences and a manifest of its own beside the tables.

    The target appears whole or not at all; a second run replaces what the first one made, and nothing else.
    """
    import datasets

    started = time.monotonic()
    manifest = check_finished(folder)
    check_target(folder, target)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    typed = features(folder)
    # From disk to disk, so that a dataset of any size fits into memory.
    with new_folder(target, STAGE) as partial, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        tables = datasets.DatasetDict()
        for name in SPLITS:
            source = {"path": folder / f"{name}.jsonl"}
            tables[name] = datasets.Dataset.from_generator(_rows, typed, cache, gen_kwargs=source, split=name)
        tables.save_to_disk(partial)
        for name in manifest["outputs"].keys() - {f"{split}.jsonl" for split in SPLITS}:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, partial / name)
        counts = {name: len(table) for name, table in tables.items()}
        write_manifest(partial, STAGE, {"dataset": digest(folder)}, {}, counts, ("datasets",), started)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows unchanged: a JSON reader that guesses types would turn a text that looks like a time into one."""
    yield from (row for _, row, _ in read_lines(path))


def check_target(folder: Path, target: Path) -> None:
    """Raises UserError if save_to_disk would replace anything but what it made before."""
    here, there = folder.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise UserError(f"{target}: overlaps with the dataset folder {folder}; name another folder")
    check_replaceable(target, STAGE)


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Publish the manifest and all files that it names as dataset repository `repo`; returns the commit's address."""
    manifest = check_finished(folder)
    files = {name: folder / name for name in (MANIFEST, *manifest["outputs"])}
    return hub.push(files, "dataset", repo, f"Dataset with sha256 {digest(folder)}", private)
