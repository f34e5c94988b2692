"""The number of this process, whether it writes files, and how processes wait for each other."""

from __future__ import annotations

import os
from typing import Any


def world_size() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """The GPU of this process on its host."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """Is this the process that prints and writes?  The first of all hosts' processes is."""
    return int(os.environ.get("RANK", 0)) == 0


def gather(value: Any) -> list[Any]:
    """Every process's value, in the order of their ranks.  Every process gets all of them."""
    if world_size() == 1:
        return [value]
    import torch

    _connect()
    values = [None] * world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Return when every process has reached this call."""
    if world_size() > 1:
        _connect().wait_for_everyone()


def _connect() -> Any:
    """accelerate's view of the processes; the first call connects them."""
    import torch
    from accelerate import PartialState

    if not torch.cuda.is_available():  # otherwise it is cpu:0, where torch.load cannot put a checkpoint
        os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")
    return PartialState()
