"""Before the first byte: do disk and memory suffice?  While the bytes are made: is this the adapter's base?"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from models.base_folder import base_digest
from plumbing.errors import UserError

MEMINFO = Path("/proc/meminfo")
PROCESS = 120_000_000  # bytes of an export besides what its tensors take: interpreter, NumPy, gguf, a vocabulary


def check_disk(out: Path, needed: int, cure: str = "name another --out") -> None:
    """Raises UserError when fewer than `needed` bytes are free where `out` will lie."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{out}: needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; free some space or {cure}"
        )


def check_memory(tensors: int, threads: int) -> None:
    """Raises UserError when an export and `tensors` bytes would not fit into what the system calls available."""
    fewer = ", or give it fewer cores: taskset -c 0 python -m quantize" * (threads > 1)
    check_available(PROCESS + tensors, f"close other programs{fewer}", f" on {threads} cores")


def check_available(needed: int, cure: str, where: str = "") -> None:
    """Raises UserError when `needed` bytes are more than the system calls available."""
    available = _available()
    if available is not None and available < needed:
        raise UserError(
            f"needs {needed / 1e6:,.0f} MB of memory{where}, {available / 1e6:,.0f} MB are available; {cure}"
        )


def _available() -> int | None:
    """Bytes; None where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None


def check_base(adapter: Path, wanted: str | None, folder: Path) -> None:
    """Raises UserError when `folder` does not hold the base of that digest.  Reads all of it: 14 GB of a 7B."""
    found = base_digest(folder)
    if found != wanted:
        raise UserError(
            f"{adapter}: was trained on another base than {folder} (sha256 {str(wanted)[:12]}, found {found[:12]}); "
            "name its own with --base DIR, or train again on this one"
        )


def beside(check: Callable[..., None], *arguments: object) -> Future[None]:
    """Run the check in a thread that nobody waits for who does not ask: an export that fails or is stopped ends at once."""
    proof: Future[None] = Future()

    def settle() -> None:
        try:
            proof.set_result(check(*arguments))
        except BaseException as error:
            proof.set_exception(error)

    threading.Thread(target=settle, daemon=True).start()
    return proof
