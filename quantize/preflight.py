"""Before an export writes its first byte: is there enough disk and memory for it?"""

from __future__ import annotations

from pathlib import Path

from plumbing.errors import UserError

MEMINFO = Path("/proc/meminfo")
PROCESS = 120_000_000  # bytes of an export besides what its tensors take: interpreter, NumPy, gguf, a vocabulary


def check_memory(tensors: int, threads: int) -> None:
    """Raises UserError when an export and `tensors` bytes would not fit into the available memory."""
    fewer = ", or give it fewer cores: taskset -c 0 python -m quantize" * (threads > 1)
    check_available(PROCESS + tensors, f"close other programs{fewer}", f" on {threads} cores")


def check_available(needed: int, cure: str, where: str = "") -> None:
    """Raises UserError when `needed` bytes are more than the system reports as available."""
    available = _available()
    if available is not None and available < needed:
        raise UserError(
            f"needs {needed / 1e6:,.0f} MB of memory{where}, {available / 1e6:,.0f} MB are available; {cure}"
        )


def _available() -> int | None:
    """Bytes; None where the system does not report them."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None
