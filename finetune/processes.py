"""One process a GPU, as `accelerate launch` and torchrun start them: who this process is, and who writes."""

from __future__ import annotations

import os


def world_size() -> int:
    """How many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """The GPU of this process on its host."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """Is this the process that prints and writes?"""
    return int(os.environ.get("RANK", 0)) == 0


def wait_for_all() -> None:
    """Every process comes to here before any goes on."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
