"""A run's folder of checkpoints, beside its --out: who may resume from it, and which checkpoint is whole.

It holds the trainer's `checkpoint-N` folders, `run.json` (what the run was begun with) and `plan.json` (attempts.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.config import Settings
from finetune.parallel.processes import is_main, wait_for_all, world_size
from plumbing.errors import UserError
from plumbing.handover import new_file

# What is said of a disk without room: by the system, to safetensors too, and by torch.save.
FULL = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing", "] . unexpected pos ")


def begin(out: Path, settings: Settings, inputs: dict[str, str], resume: bool) -> Path:
    """The folder for a run that will write `out`, emptied unless it is resumed.

    `inputs` are the sha256 of dataset and base.  Raises UserError when other settings or inputs began what is there.
    """
    folder = out.with_name(f".{out.name}.checkpoints")
    digests = {f"content of the {name}": digest for name, digest in inputs.items()}
    begun = dataclasses.asdict(settings) | digests | {"number of processes": world_size()}
    if resume:
        _check_begun(folder, begun)
    elif is_main():
        shutil.rmtree(folder, ignore_errors=True)
        with new_file(folder / "run.json") as file:
            file.write_text(json.dumps(begun), encoding="utf-8")
    wait_for_all()
    return folder


def _check_begun(folder: Path, begun: dict[str, Any]) -> None:
    try:
        told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _nothing_there(folder) from None
    others = [key for key in begun | told if begun.get(key) != told.get(key)]
    if others:
        raise UserError(f"{folder}: was begun with another {', '.join(others)}; run without --resume")


def _nothing_there(folder: Path) -> UserError:
    return UserError(f"{folder}: no checkpoint to resume from; run without --resume")


@contextlib.contextmanager
def told_what_is_kept(folder: Path) -> Iterator[None]:
    """In the body, Ctrl-C says where to go on, and so does the UserError that a full disk becomes."""
    try:
        yield
    except KeyboardInterrupt:
        found = find_checkpoint(folder)
        if found and is_main():
            print(f"{found.name} is kept: the same command with --resume goes on from there", flush=True)
        raise
    except Exception as error:
        if not any(word in str(error) for word in FULL):
            raise
        found = find_checkpoint(folder)
        cure = f"with --resume: it goes on from {found.name}" if found else "again"
        raise UserError(
            f"{folder.parent}: no room left on the disk; free some and run the same command {cure}"
        ) from None


def last_checkpoint(folder: Path) -> str:
    """The newest whole checkpoint's folder.  Raises UserError when there is none."""
    found = find_checkpoint(folder)
    if found is None:
        raise _nothing_there(folder)
    return str(found)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint's folder, if there is one."""
    found = filter(is_whole, folder.glob("checkpoint-*"))
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def is_whole(checkpoint: Path) -> bool:
    """Whether nothing of it was left unwritten by a kill.

    Rank 0 writes trainer_state.json last, but does not wait for the others: each ends with its own random state.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    states = list(checkpoint.glob("rng_state*.pth"))
    return len(states) >= world_size() and all(map(zipfile.is_zipfile, states))
