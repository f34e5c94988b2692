"""Finished rows of a teacher's run -> how many were accepted, refused and lost, shown while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from plumbing.progress import every, progress

PAUSE = 10.0  # seconds between plain lines


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

    def line() -> str:
        left = f", about {spell((tally.total - tally.done) / tally.rate())} left" if tally.done else ""
        return f"{label}: {tally.done} of {tally.total} rows, {tally}, {tally.rate():.2f} rows/s{left}"

    with progress(label, tally.total, line, every(PAUSE), lambda: f"{tally.rate():.2f} rows/s  {tally}") as show:
        yield lambda: show(tally.done)


def spell(seconds: float) -> str:
    """
    >>> spell(42), spell(600), spell(9000)
    ('42 s', '10 min', '2 h 30 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
