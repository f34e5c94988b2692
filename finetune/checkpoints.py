"""A run's checkpoints beside its --out: which run may resume from them, and which are complete.

The folder holds the trainer's `checkpoint-N` folders, `run.json` (the settings and inputs that the run started with) and
`plan.json` (written by train_with_fallback.py).
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

# Words in the errors of a full disk: from the system, also through safetensors, and from torch.save.
DISK_FULL = (
    "No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing", "] . unexpected pos ",
)  # fmt: skip
# Words in the errors of a connection whose other end is gone: from gloo, and from NCCL.
PEER_LOST = ("closed by peer", "reset by peer", "Broken pipe", "ncclRemoteError")
NO_CHECKPOINT = "no checkpoint to resume from; run without --resume"


def begin(out: Path, settings: Settings, inputs: dict[str, str], resume: bool) -> Path:
    """The checkpoint folder for a run that will write `out`.  It is emptied unless the run resumes.

    `inputs` are the sha256 of dataset and base.  Raises UserError when the run to resume had other settings or inputs.
    """
    folder = out.with_name(f".{out.name}.checkpoints")
    digests = {f"content of the {name}": digest for name, digest in inputs.items()}
    started = dataclasses.asdict(settings) | digests | {"number of processes": world_size()}
    if resume:
        _check_started(folder, started)
    elif is_main():
        shutil.rmtree(folder, ignore_errors=True)
        with new_file(folder / "run.json") as file:
            file.write_text(json.dumps(started), encoding="utf-8")
    if is_main() and world_size() > 1:  # printed now, because a process that is killed prints nothing
        print("if a process dies, torchrun ends the others; the same command with --resume continues", flush=True)
    wait_for_all()
    return folder


def _check_started(folder: Path, now: dict[str, Any]) -> None:
    try:
        before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: {NO_CHECKPOINT}") from None
    others = [key for key in now | before if now.get(key) != before.get(key)]
    if others:
        raise UserError(f"{folder}: was started with another {', '.join(others)}; run without --resume")


@contextlib.contextmanager
def explain_interruption(folder: Path) -> Iterator[None]:
    """When the body is stopped by Ctrl-C, a full disk or another process's end, print how to continue.

    A full disk and a lost process become a UserError; other errors pass through.
    """
    try:
        yield
    except KeyboardInterrupt:
        found = find_checkpoint(folder)
        if found and is_main():
            print(f"{found.name} is kept: the same command with --resume continues from there", flush=True)
        raise
    except Exception as error:
        cause = ""
        if any(word in str(error) for word in DISK_FULL):
            cause = f"{folder.parent}: no room left on the disk; free some and"
        elif world_size() > 1 and any(word in str(error) for word in PEER_LOST):
            cause = "another process of this training ended (torchrun names it below);"
        if not cause:
            raise
        found = find_checkpoint(folder)
        cure = f"with --resume: it continues from {found.name}" if found else "again"
        raise UserError(f"{cause} run the same command {cure}") from None


def last_checkpoint(folder: Path) -> str:
    """The newest complete checkpoint's folder.  Raises UserError when there is none."""
    found = find_checkpoint(folder)
    if found is None:
        raise UserError(f"{folder}: {NO_CHECKPOINT}")
    return str(found)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint's folder, if there is one."""
    found = filter(is_complete, folder.glob("checkpoint-*"))
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def is_complete(checkpoint: Path) -> bool:
    """Whether every process wrote all of it before it could be killed.

    Rank 0 writes trainer_state.json last but does not wait for the others.  Each of these writes its random state last.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    states = list(checkpoint.glob("rng_state*.pth"))
    return len(states) >= world_size() and all(map(zipfile.is_zipfile, states))
