"""Shows how far work of a known size is, on stderr: a bar on a terminal, plain lines elsewhere.

with progress("teacher", 40, line=lambda: f"teacher: {tally}", due=every(10.0)) as show:
    show(12)    # 12 of the 40 are done
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

Due = Callable[[int], bool]  # how much is done -> whether a plain line is printed now


def every(seconds: float) -> Due:
    """A plain line when so many seconds have passed since the last one: short work prints none."""
    last = time.monotonic()

    def due(done: int) -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < seconds:
            return False
        last = now
        return True

    return due


@contextlib.contextmanager
def progress(
    label: str, total: int, line: Callable[[], str], due: Due, note: Callable[[], str] = str,
    below: Callable[[], Any] | None = None, count_bytes: bool = False,
) -> Iterator[Callable[[int], None]]:  # fmt: skip
    """Yields `show(done)`, to be called whenever more is done.

    `line` is a plain line's text.  On a terminal `note` is the text beside the bar, and `below` a rich renderable under it.
    """
    if not sys.stderr.isatty():
        yield lambda done: print(line(), file=sys.stderr, flush=True) if due(done) else None
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False), BarColumn(),
        DownloadColumn() if count_bytes else MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False), TimeRemainingColumn(),
        speed_estimate_period=300,  # seconds: a teacher's rows are far apart
    )  # fmt: skip
    task = bar.add_task(label, total=total, note=note())
    with Live(
        console=Console(stderr=True), get_renderable=lambda: Group(bar, below()) if below else bar, transient=True,
        redirect_stdout=sys.stdout.isatty(),  # without this, prints to a file would go to stderr
    ):  # fmt: skip
        yield lambda done: bar.update(task, completed=done, note=note())


@contextlib.contextmanager
def byte_progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """`with byte_progress("model.gguf", size) as advance: advance(count)`; a plain line every five seconds."""
    started, done = time.monotonic(), 0

    def line() -> str:
        left = (total - done) * (time.monotonic() - started) / max(1, done)
        return f"{label}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {left:,.0f} s left"

    with progress(label, total, line, every(5.0), count_bytes=True) as show:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            show(done)

        yield advance
