"""Bytes done of bytes to do -> a progress bar on a terminal, plain lines elsewhere; both tell the time left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

QUIET = 5.0  # seconds between plain lines: short work prints none


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """`with progress("model.gguf", size) as advance: advance(bytes)`; what is shown goes to stderr."""
    if not sys.stderr.isatty():
        yield _plain(label, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _plain(label: str, total: int) -> Callable[[int], None]:
    started = told = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done += count
        now = time.monotonic()
        if now - told >= QUIET:
            told = now
            left = (total - done) * (now - started) / max(1, done)
            print(
                f"{label}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {left:,.0f} s left", file=sys.stderr, flush=True
            )

    return advance
