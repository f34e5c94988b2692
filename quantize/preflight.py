"""Before an export writes its first byte: is there enough disk and memory for it?"""

from __future__ import annotations

import psutil

from plumbing.errors import UserError

PROCESS = 120_000_000  # bytes of an export besides what its tensors take: interpreter, NumPy, gguf, a vocabulary


def check_memory(tensors: int, threads: int) -> None:
    """Raises UserError when an export and `tensors` bytes would not fit into the available memory."""
    needed, available = PROCESS + tensors, psutil.virtual_memory().available
    if available < needed:
        fewer = ", or give it fewer cores: taskset -c 0 python -m quantize" * (threads > 1)
        raise UserError(
            f"needs {needed / 1e6:,.0f} MB of memory on {threads} cores, {available / 1e6:,.0f} MB are available; "
            f"close other programs{fewer}"
        )
