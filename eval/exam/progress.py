"""Verdicts as they come -> what a person sees meanwhile, on stderr: a table on a terminal, a line a tenth elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eval.judge.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table

Told = Callable[[Verdict | None, bool], None]  # the verdict (None: no answer came), and whether it was recorded before


@contextmanager
def progress(total: int) -> Iterator[Told]:
    """A callable to be told of each answer: how many came, how fast, adherence so far, time left."""
    if sys.stderr.isatty():
        with _live(total) as told:
            yield told
        return
    yield _lines(total)


class Tally:
    """How many answers came, how many of the judged adhere, and what the others show."""

    def __init__(self) -> None:
        self.came = self.judged = self.kept = 0
        self.adhering = {"strict": 0, "loose": 0, "lenient": 0}
        self.failed: Counter[str] = Counter()  # by primary class; "no answer" for those that never came
        self._started = time.monotonic()

    def add(self, verdict: Verdict | None, kept: bool) -> None:
        self.came += 1
        if kept:  # the clock is for those that are asked
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


@contextmanager
def _live(total: int) -> Iterator[Told]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    state = TextColumn("{task.fields[rate]:.1f}/s  left")
    bar = Progress(TextColumn("asking"), BarColumn(), MofNCompleteColumn(), state, TimeRemainingColumn())
    task, tally = bar.add_task("", total=total, rate=0.0), Tally()
    with Live(console=Console(stderr=True), get_renderable=lambda: Group(bar, tally.table()), transient=True):

        def told(verdict: Verdict | None, kept: bool) -> None:
            tally.add(verdict, kept)
            bar.update(task, advance=1, rate=tally.rate)

        yield told


def _lines(total: int) -> Told:
    tally, tenth = Tally(), max(1, total // 10)

    def told(verdict: Verdict | None, kept: bool) -> None:
        tally.add(verdict, kept)
        if tally.came % tenth == 0 or tally.came == total:
            print(
                f"answered {tally.came} of {total}, {tally.rate:.1f}/s, adherence {tally.share()}, {tally.left(total)}",
                file=sys.stderr, flush=True,
            )  # fmt: skip

    return told
