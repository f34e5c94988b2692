"""Finished rows of a teacher's run -> a bar on a terminal, a plain line every ten seconds elsewhere; on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

QUIET = 10.0  # seconds between plain lines


@dataclass
class Tally:
    """What this run has done so far, of the `total` rows that it must ask."""

    total: int
    accepted: int = 0
    rejected: int = 0  # answers; a row may have several
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.accepted + self.failed

    def rate(self) -> float:
        """Finished rows a second."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def __str__(self) -> str:
        return f"{self.accepted} accepted, {self.rejected} answers rejected, {self.failed} failed"


@contextmanager
def watching(label: str, tally: Tally) -> Iterator[Callable[[], None]]:
    """`with watching("teacher", tally) as show: show()`, to be called after each change and once a second."""
    if not sys.stderr.isatty():
        yield _plain(label, tally)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.2f} rows/s"),
        TimeRemainingColumn(), TextColumn("{task.fields[tally]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=300) as bar:
        task = bar.add_task(label, total=tally.total, rate=0.0, tally=str(tally))
        yield lambda: bar.update(task, completed=tally.done, rate=tally.rate(), tally=str(tally))


def _plain(label: str, tally: Tally) -> Callable[[], None]:
    told = time.monotonic()

    def show() -> None:
        nonlocal told
        if time.monotonic() - told < QUIET:
            return
        told = time.monotonic()
        left = f", about {spell((tally.total - tally.done) / tally.rate())} left" if tally.done else ""
        print(
            f"{label}: {tally.done} of {tally.total} rows, {tally}, {tally.rate():.2f} rows/s{left}",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    return show


def spell(seconds: float) -> str:
    """
    >>> spell(42), spell(600), spell(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
