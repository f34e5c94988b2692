"""A gate file + a run's figures -> Outcome: which bounds are met, missed, or need more answers.

[adherence]              # strict, loose, lenient; min_low applies to each that is not named
strict = 0.90            # the lower end of the interval must reach this share
[named]
min_low = 0.60
[sections]               # and [categories]: by name; min_low applies to each that is not named
note = 0.98
[classes]                # the share of answers that show the class: the upper end must not exceed it
TRUNCATED = 0.02
[errors]
max_share = 0.01         # requests without an answer; the count itself, no interval
[non_inferior]
report = "../reports/last"   # beside the gate file; its answers.jsonl must hold the same requests
margin = 0.05            # the lower end of the paired difference must reach -margin
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.stats.intervals import Rate, answers_needed
from eval.stats.paired import Paired, PairedAnswer, check_same, pair, read_paired_answers
from plumbing.errors import UserError, faults_error
from plumbing.templates import render
from plumbing.toml_file import read_toml, table_faults

PASS, BELOW, INCONCLUSIVE = "pass", "below", "inconclusive"
CODES = {PASS: 0, BELOW: 2, INCONCLUSIVE: 3}
LEAST = ("adherence", "named", "sections", "categories")  # tables of lower bounds (min_low); the others have max_share
Known = Mapping[str, Sequence[str]]  # table -> the names that it may bound; a table that is not in it has one figure


@dataclass(frozen=True)
class Bound:
    table: str
    name: str  # "" in a table of one figure
    share: float

    @property
    def title(self) -> str:
        return f"{self.table} {self.name}".strip()


@dataclass(frozen=True)
class NonInferior:
    report: str
    margin: float


@dataclass(frozen=True)
class Gate:
    bounds: tuple[Bound, ...]
    non_inferior: NonInferior | None = None
    reference: Mapping[str, PairedAnswer] = field(default_factory=dict)  # the stored report's strict results


@dataclass(frozen=True)
class Figures:
    """What a gate checks.  The rates should be `clustered_rate`s: answers about one concept are not independent."""

    adherence: Mapping[str, Rate]  # by reading
    named: Rate
    sections: Mapping[str, Rate]
    categories: Mapping[str, Rate]
    classes: Mapping[str, Rate]  # every class of the closed list -> answers that show it
    attempted: int
    failed: int  # no answer came


@dataclass(frozen=True)
class Ruling:
    title: str
    verdict: str  # pass, below, inconclusive
    expected: str
    found: str
    cause: str  # why it did not pass, and what would help; "" when it passed


@dataclass(frozen=True)
class Outcome:
    rulings: tuple[Ruling, ...]

    @property
    def verdict(self) -> str:
        """The worst of all: a missed bound outweighs an inconclusive one."""
        return max((ruling.verdict for ruling in self.rulings), key=[PASS, INCONCLUSIVE, BELOW].index)

    @property
    def code(self) -> int:
        """The process's exit code: 0 pass, 2 below, 3 inconclusive."""
        return CODES[self.verdict]


@dataclass(frozen=True)
class _File:
    adherence: dict[str, float] = field(default_factory=dict)
    named: dict[str, float] = field(default_factory=dict)
    sections: dict[str, float] = field(default_factory=dict)
    categories: dict[str, float] = field(default_factory=dict)
    classes: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    non_inferior: dict[str, Any] = field(default_factory=dict)


def load_gate(path: Path, known: Known, requests: Mapping[str, str]) -> Gate:
    """The gate of a file, checked before the run against what will be asked.

    `known`: the readings under adherence, then sections, categories and classes; `requests`: id -> text of each request.
    Raises UserError with all faults of the file at once, and when the stored report has other requests.
    """
    table = read_toml(path)
    faults = table_faults(_File, table)
    if not faults:
        bounds = {name: values for name, values in table.items() if name != "non_inferior"}
        faults = [fault for name, values in bounds.items() for fault in _bound_faults(name, values, known)]
        faults += _non_inferior_faults(table.get("non_inferior"))
        faults += [] if any(table.values()) else ["does not hold a bound"]
    if faults:
        raise faults_error(str(path), faults)
    found = tuple(bound for name, values in bounds.items() for bound in _bounds(name, values, known))
    if "non_inferior" not in table:
        return Gate(found)
    non_inferior = NonInferior(**table["non_inferior"])
    reference = read_paired_answers(path.parent / non_inferior.report)
    try:
        check_same(requests, {name: row.request for name, row in reference.items()})
    except UserError as error:
        raise UserError(f"{path}: [non_inferior] report '{non_inferior.report}': {error}") from None
    return Gate(found, non_inferior, reference)


def _every(table: str) -> str:
    """The key that bounds each figure of a table that is not named."""
    return "min_low" if table in LEAST else "max_share"


def _bounds(table: str, values: Mapping[str, float], known: Known) -> list[Bound]:
    names = [name for name in known.get(table, [""]) if name in values or _every(table) in values]
    return [Bound(table, name, values.get(name, values.get(_every(table), 0.0))) for name in names]


def _bound_faults(table: str, values: Mapping[str, float], known: Known) -> list[str]:
    names = [_every(table), *known.get(table, [])]
    faults = [f"unknown name '{name}' (known: {', '.join(names)})" for name in values if name not in names]
    for name, share in values.items():
        if table in LEAST and not 0 <= share < 1:
            faults.append(f"'{name}' is {share}, expected a share from 0 to below 1 (no run can prove 1)")
        elif table == "classes" and not 0 < share <= 1:
            faults.append(f"'{name}' is {share}, expected a share above 0 (no run can prove 0) up to 1")
        elif not 0 <= share <= 1:
            faults.append(f"'{name}' is {share}, expected a share from 0 to 1")
    return [f"[{table}]: {fault}" for fault in faults]


def _non_inferior_faults(values: dict[str, Any] | None) -> list[str]:
    if values is None:
        return []
    faults = table_faults(NonInferior, values)
    if not faults and not 0 < values["margin"] < 1:
        faults = [f"'margin' is {values['margin']}, expected a share between 0 and 1"]
    return [f"[non_inferior]: {fault}" for fault in faults]


def judge_gate(gate: Gate, figures: Figures, results: Mapping[str, PairedAnswer] | None = None) -> Outcome:
    """Every bound's ruling.  `results` (strict) are needed by a gate that compares with a stored report.

    A lower bound passes when the interval's lower end reaches it.  It is missed (below) when the upper end stays under it.
    Between the two it is inconclusive: the answers are too few.  For an upper bound the ends change places.
    """
    rulings = [_rule(bound, figures) for bound in gate.bounds]
    if gate.non_inferior:
        rulings.append(_rule_pair(gate.non_inferior, pair(results or {}, gate.reference)))
    return Outcome(tuple(rulings))


def _rule(bound: Bound, figures: Figures) -> Ruling:
    if bound.table == "errors":
        return _rule_errors(bound, figures)
    found = getattr(figures, bound.table)
    rate: Rate = found[bound.name] if bound.name else found
    least = bound.table in LEAST
    met = rate.low >= bound.share if least else rate.high <= bound.share
    missed = rate.high < bound.share if least else rate.low > bound.share
    expected = f"{'at least' if least else 'at most'} {_percent(bound.share)}"
    verdict = PASS if met else BELOW if missed else INCONCLUSIVE
    cause = {
        PASS: "",
        BELOW: "the whole interval is on the wrong side of the bound",
        INCONCLUSIVE: _open_cause(rate, bound.share, least),
    }
    return Ruling(bound.title, verdict, expected, f"{rate} of {rate.n}", cause[verdict])


def _rule_errors(bound: Bound, figures: Figures) -> Ruling:
    met = figures.failed <= bound.share * figures.attempted
    cause = "" if met else "requests got no answer; fix the server and run again"
    found = f"{figures.failed} of {figures.attempted}"
    return Ruling(bound.title, PASS if met else BELOW, f"at most {_percent(bound.share)}", found, cause)


def _open_cause(rate: Rate, bound: float, least: bool) -> str:
    """Why the bound is inconclusive, and how many answers would decide it."""
    if rate.share is None:
        return "nothing was counted"
    needed = answers_needed(rate.share, bound)
    cause = f"the bound is inside the interval: {rate.n} answers are too few"
    if needed is None:
        return cause
    more = f"about {needed}" if needed > rate.n else "more concepts"
    outcome = "met" if (rate.share > bound) == least else "missed"
    return f"{cause}; {more} would show that it is {outcome} if the share stayed at {_percent(rate.share)}"


def _rule_pair(bound: NonInferior, paired: Paired) -> Ruling:
    low, high = paired.clustered_low, paired.clustered_high
    verdict = PASS if low >= -bound.margin else BELOW if high < -bound.margin else INCONCLUSIVE
    cause = {PASS: "", BELOW: f"lost: {', '.join(paired.lost[:10])}", INCONCLUSIVE: f"{paired.n} pairs are too few"}
    if paired.unanswered:
        cause[INCONCLUSIVE] += f"; {len(paired.unanswered)} requests lack an answer in one run"
    found = f"{paired}; with whole concepts resampled {100 * low:+.1f} to {100 * high:+.1f}"
    expected = f"no more than {_percent(bound.margin)} worse"
    return Ruling(f"non_inferior {bound.report}", verdict, expected, found, cause[verdict])


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def to_markdown(outcome: Outcome) -> str:
    """A short table for a CI job's page; the bounds that did not pass come first."""
    passed = [ruling for ruling in outcome.rulings if ruling.verdict == PASS]
    missed = [ruling for ruling in outcome.rulings if ruling.verdict != PASS]
    return render(Path(__file__).with_name("gate.md.jinja"), {"outcome": outcome, "passed": passed, "missed": missed})
