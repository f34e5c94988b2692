"""Rows, facts and certificate -> dataset folder with card and manifest, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.contract import Contract
from contract.example import SPLITS
from data_gen.compose.dataset import Dataset, Sides, concept_groups
from data_gen.compose.task_data import TaskData
from data_gen.facts import fact_files
from data_gen.leaks.certificate import Certificate
from plumbing.handover import new_folder, sha256, write_manifest

if TYPE_CHECKING:
    from data_gen.teacher.teach import Taught

PACKAGES = ("numpy", "scipy", "textstat", "matplotlib")  # what the folder's figures come from


@dataclass(frozen=True)
class DatasetParts:
    """All that a dataset folder is written from."""

    contract: Contract
    data: TaskData
    task: Path
    facts: Path
    sides: Sides
    dataset: Dataset
    certificate: Certificate
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    taught: Taught | None = None  # by a model; None: composed from the task's templates


def write_folder(out: Path, parts: DatasetParts, started: float) -> str:
    """Write the dataset folder, unless one with the same content exists; returns the dataset's sha256.

    `started` is a time.monotonic() value.
    """
    from data_gen.pictures import pictures

    settings = parts.settings | ({"teacher": parts.taught.pins | parts.taught.counts} if parts.taught else {})
    inputs = {path.name: sha256(path) for path in fact_files(parts.facts)}
    counts = {name: len(rows) for name, rows in parts.dataset.items()}
    with new_folder(out, "dataset", keep_equal=True) as folder:
        _write_rows(folder, parts.dataset)
        _write_sources(folder, parts.task, parts.facts)
        _write(folder / "concepts.json", json.dumps(concept_groups(parts.sides), indent=1, ensure_ascii=False) + "\n")
        _write(folder / "certificate.json", parts.certificate.to_json())
        if parts.taught:
            _write(folder / "failed.jsonl", "".join(row.to_json() + "\n" for row in parts.taught.failed))
        pictures(parts.dataset, folder)
        identity = digest(folder)
        _write(folder / "README.md", _card(parts, identity, (folder / "ATTRIBUTION.md").is_file()))
        write_manifest(folder, "dataset", inputs, settings, counts, PACKAGES, started)
    return identity


def digest(folder: Path) -> str:
    """One sha256 over the split files, in order: the dataset's identity."""
    total = hashlib.sha256()
    for name in SPLITS:
        total.update((folder / f"{name}.jsonl").read_bytes())
    return total.hexdigest()


def _write_rows(folder: Path, dataset: Dataset) -> None:
    for name, rows in dataset.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(row.to_json() + "\n" for row in rows)


def _write_sources(folder: Path, task: Path, facts: Path) -> None:
    """The task, and the facts' attribution and licences if there are any."""
    shutil.copyfile(task, folder / "task.toml")
    beside = facts if facts.is_dir() else facts.parent
    if (beside / "ATTRIBUTION.md").is_file():
        shutil.copyfile(beside / "ATTRIBUTION.md", folder / "ATTRIBUTION.md")
    if (beside / "licences").is_dir():
        shutil.copytree(beside / "licences", folder / "licences")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _card(parts: DatasetParts, identity: str, attribution: bool) -> str:
    from data_gen.card import card

    facts = [fact for members in parts.sides.values() for fact in members]
    origin = {
        "command": parts.command, "task": parts.contract.name, "seed": parts.settings["seed"], "sha256": identity,
        "licence": parts.data.licence, "language": parts.data.language, "tags": parts.data.tags,
        "attribution": attribution,
    }  # fmt: skip
    if parts.taught:
        counts, pins = parts.taught.counts, parts.taught.pins
        origin["teacher"] = f"{pins['model']}, digest {pins['digest']}"
        outcome = f"{counts['accepted']} accepted, {counts['failed']} failed (failed.jsonl)"
        origin["rows asked of it"] = f"{counts['rows']}: {outcome}"
    return card(parts.contract, parts.dataset, facts, parts.certificate.line(), origin)
