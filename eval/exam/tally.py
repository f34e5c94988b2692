"""Verdicts as they come -> how many answers adhere so far, shown while an exam runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eval.judge.verdict import Verdict
from plumbing import progress as display

if TYPE_CHECKING:
    from rich.table import Table

Told = Callable[[Verdict | None, bool], None]  # the verdict (None: no answer came), and whether it was recorded before


@contextmanager
def progress(total: int) -> Iterator[Told]:
    """Yields a function to call for each answer.  It shows how many came, how fast, adherence so far, time left."""
    tally, tenth = Tally(), max(1, total // 10)
    with display.progress(
        "asking", total,
        line=lambda: f"answered {tally.came} of {total}, {tally.rate:.1f}/s, adherence {tally.share()}, {tally.left(total)}",
        due=lambda done: done % tenth == 0 or done == total,
        note=lambda: f"{tally.rate:.1f}/s", below=tally.table,
    ) as show:  # fmt: skip

        def told(verdict: Verdict | None, kept: bool) -> None:
            tally.add(verdict, kept)
            show(tally.came)

        yield told


class Tally:
    """How many answers came, how many of the judged adhere, and the failure classes of the others."""

    def __init__(self) -> None:
        self.came = self.judged = self.kept = 0
        self.adhering = {"strict": 0, "loose": 0, "lenient": 0}
        self.failed: Counter[str] = Counter()  # by primary class; "no answer" for those that never came
        self._started = time.monotonic()

    def add(self, verdict: Verdict | None, kept: bool) -> None:
        self.came += 1
        if kept:  # the clock measures only the answers that are asked now
            self.kept, self._started = self.kept + 1, time.monotonic()
        if verdict is None:
            self.failed["no answer"] += 1
            return
        self.judged += 1
        for reading in self.adhering:
            self.adhering[reading] += getattr(verdict, reading)
        if verdict.primary:
            self.failed[verdict.primary] += 1

    def share(self, reading: str = "strict") -> str:
        return f"{100 * self.adhering[reading] / self.judged:.1f} %" if self.judged else "-"

    @property
    def rate(self) -> float:
        """Answers a second."""
        return (self.came - self.kept) / max(time.monotonic() - self._started, 1e-9)

    def left(self, total: int) -> str:
        """Time until all have come."""
        return f"{(total - self.came) / self.rate:.0f} s left" if self.rate else "time left unknown"

    def table(self) -> Table:
        """Adherence by reading, then the failure classes, the most frequent first."""
        from rich.table import Table

        table = Table("so far", "answers", "share", box=None, padding=(0, 2))
        for reading, count in self.adhering.items():
            table.add_row(f"keep the form, {reading}", str(count), self.share(reading))
        for name, count in self.failed.most_common():
            table.add_row(name, str(count), f"{100 * count / self.came:.1f} %")
        return table
