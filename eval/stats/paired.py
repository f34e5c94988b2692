"""Two runs over the same requests -> Paired: their difference, its interval, and what changed.

paired = pair(read_paired_answers(Path("reports/tuned")), read_paired_answers(Path("reports/base")))
paired.difference        # measured minus reference: above 0 the measured run is better
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from eval.stats.intervals import CONFIDENCE, bootstrap, smallest_difference, unseen, z_value
from plumbing.errors import UserError, faults_error
from plumbing.jsonl import first_faults, read_lines


@dataclass(frozen=True)
class PairedAnswer:
    """The result of one request in one run."""

    request: str
    concept: str
    adheres: bool | None  # None: no answer came


@dataclass(frozen=True)
class Paired:
    """The measured run against the reference, over the `n` requests that both runs answered."""

    n: int
    both: int  # adhere in both runs
    only_measured: int
    only_reference: int
    neither: int
    difference: float | None  # share of the measured run minus the reference's; None when n is 0
    low: float  # Tango's interval
    high: float
    clustered_low: float  # the same with whole concepts resampled: see `clustered_difference`
    clustered_high: float
    p: float  # exact McNemar test, two-sided
    smallest: float | None  # the smallest difference that this n could have shown; None when n is too small for any
    gained: tuple[str, ...]  # ids that adhere only in the measured run
    lost: tuple[str, ...]  # ids that adhere only in the reference
    unanswered: tuple[str, ...]  # ids without an answer in one run or both; not in any count above

    def __str__(self) -> str:
        if self.difference is None:
            return "-"
        return (
            f"{100 * self.difference:+.1f} points ({100 * self.low:+.1f} to {100 * self.high:+.1f}), "
            f"{self.only_measured} gained and {self.only_reference} lost of {self.n}, McNemar p = {self.p:.2g}"
        )


def pair(measured: Mapping[str, PairedAnswer], reference: Mapping[str, PairedAnswer], seed: int = 0) -> Paired:
    """Compare two runs, request by request; keys are the examples' ids.

    Raises UserError when an id is in only one run, or has another request in the other run.
    """
    check_same(
        {name: row.request for name, row in measured.items()}, {name: row.request for name, row in reference.items()}
    )
    rows = [(name, row.adheres, reference[name].adheres, row.concept) for name, row in measured.items()]
    answered = [(name, ours, theirs, concept) for name, ours, theirs, concept in rows if None not in (ours, theirs)]
    gained = tuple(name for name, ours, theirs, _ in answered if ours and not theirs)
    lost = tuple(name for name, ours, theirs, _ in answered if theirs and not ours)
    n, both = len(answered), sum(bool(ours and theirs) for _, ours, theirs, _ in answered)
    steps = [bool(ours) - bool(theirs) for _, ours, theirs, _ in answered]
    low, high = tango(len(gained), len(lost), n)
    clustered_low, clustered_high = clustered_difference(steps, [concept for *_, concept in answered], seed)
    return Paired(
        n, both, len(gained), len(lost), n - both - len(gained) - len(lost),
        sum(steps) / n if n else None, low, high, clustered_low, clustered_high,
        mcnemar(len(gained), len(lost)), smallest_difference(n, len(gained) + len(lost)),
        gained, lost, tuple(name for name, ours, theirs, _ in rows if None in (ours, theirs)),
    )  # fmt: skip


def check_same(measured: Mapping[str, str], reference: Mapping[str, str]) -> None:
    """Raises UserError naming the ids that one run lacks or that have another request.  Both map an id to its request."""
    faults = [f"'{name}' is only in the measured run" for name in measured if name not in reference]
    faults += [f"'{name}' is only in the reference" for name in reference if name not in measured]
    shared = [name for name in measured if name in reference]
    faults += [f"'{name}' has another request in the reference" for name in shared if measured[name] != reference[name]]
    if faults:
        where = "the two runs must ask the same requests; run both on one dataset with the same --split and --limit"
        raise faults_error(where, first_faults(faults))


def tango(gained: int, lost: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval of the paired difference (gained - lost) / n; without a changed answer its half-width is z^2 / (n + z^2).

    All differences x with (gained - lost - n x)^2 <= z^2 n (2q + x(1 - x)), where q, the share lost, is the maximum
    likelihood estimate under x (T. Tango, Statistics in Medicine 17, 1998, p. 891, equations 24 to 26).

    >>> [round(end, 4) for end in tango(6, 16, 161)]
    [-0.124, -0.0054]
    """
    if n == 0:
        return -1.0, 1.0
    z = z_value(confidence)

    def inside(x: float) -> bool:
        b = -gained - lost + (2 * n - gained + lost) * x
        q = (sqrt(max(0.0, b * b + 8 * n * lost * x * (1 - x))) - b) / (4 * n)
        return (gained - lost - n * x) ** 2 <= z * z * n * (2 * q + x * (1 - x))

    def end(limit: float) -> float:
        inner, outer = (gained - lost) / n, limit
        for _ in range(60):  # halvings: to the last bit of a float
            middle = (inner + outer) / 2
            inner, outer = (middle, outer) if inside(middle) else (inner, middle)
        return inner

    return end(-1.0), end(1.0)


def clustered_difference(steps: Sequence[int], concepts: Sequence[str], seed: int = 0) -> tuple[float, float]:
    """The difference's interval when whole concepts are resampled; a step is +1 gained, -1 lost, 0 unchanged.

    Percentile bootstrap over concepts, widened to Tango's interval and to what so many concepts cannot rule out: the
    losses (or gains) that may exist although none was seen.  A change for the better never lowers an end.
    """
    gained, lost, n = steps.count(1), steps.count(-1), len(steps)
    low, high = tango(gained, lost, n)
    if not steps:
        return low, high
    drawn, edge = bootstrap(steps, concepts, seed), unseen(len(set(concepts)))
    return min(low, drawn[0], gained / n - edge), max(high, drawn[1], edge - lost / n)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p, by which a changed answer goes either way (Q. McNemar, Psychometrika 12, 1947, p. 153)."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def read_paired_answers(report: Path, reading: str = "strict") -> dict[str, PairedAnswer]:
    """The results of a report folder (or of its answers.jsonl) under one reading, by id.

    Raises UserError with the first faults of the file.
    """
    path = report / "answers.jsonl" if report.is_dir() else report
    if not path.is_file():
        raise UserError(f"{path}: no such file; name a report folder of `python -m eval.adherence`")
    results: dict[str, PairedAnswer] = {}
    faults = []
    for number, row, fault in read_lines(path):
        try:
            name, result = str(row["id"]), _result(row, reading)
        except (KeyError, TypeError):
            faults.append(f"line {number}: {fault or f'expected id, request, concept, error_kind and {reading}'}")
            continue
        if name in results:
            faults.append(f"line {number}: a second answer for '{name}'")
        results[name] = result
    if faults:
        raise faults_error(str(path), first_faults(faults))
    return results


def _result(row: dict[str, object], reading: str) -> PairedAnswer:
    adheres = None if row["error_kind"] else row[reading]
    if not isinstance(adheres, bool | None):
        raise TypeError
    return PairedAnswer(str(row["request"]), str(row["concept"]), adheres)
