"""A gate file + a run's figures -> Outcome: which bounds are met, missed, or beyond what so few answers can show.

[adherence]              # strict, loose, lenient; or min_low for each that is not named
strict = 0.90            # the lower end of the interval must reach it
[named]
min_low = 0.60
[sections]               # and [categories]: by name, or min_low for each that is not named
note = 0.98
[classes]                # the share of answers that show the class: the upper end must stay at it or under
TRUNCATED = 0.02
[errors]
max_share = 0.01         # requests that got no answer, as counted
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
from eval.stats.paired import Paired, Result, check_same, pair, read_results
from plumbing.errors import UserError, faults_error
from plumbing.toml_file import read_toml, table_faults

PASS, BELOW, INCONCLUSIVE = "pass", "below", "inconclusive"
CODES = {PASS: 0, BELOW: 2, INCONCLUSIVE: 3}
LEAST = ("adherence", "named", "sections", "categories")  # tables of bounds from below, min_low; the others max_share
Known = Mapping[str, Sequence[str]]  # table -> the names that it may bound; a table that is not there has one figure


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
    reference: Mapping[str, Result] = field(default_factory=dict)  # the stored report's strict results


@dataclass(frozen=True)
class Figures:
    """What a gate reads of a run.  The rates should be `clustered_rate`s: answers about one concept hang together."""

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
    wanted: str
    found: str
    cause: str  # why it did not pass, and what would do; "" when it did


@dataclass(frozen=True)
class Outcome:
    rulings: tuple[Ruling, ...]

    @property
    def verdict(self) -> str:
        """The worst of all: a bound that is missed outweighs one that is open."""
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
    """The gate of a file, checked against what will be asked, so that a fault shows before the run, not after it.

    `known`: the readings under adherence, then sections, categories and classes; `requests`: id -> text of each request.
    Raises UserError with all faults of the file at once, and when the stored report asked something else.
    """
    table = read_toml(path)
    faults = table_faults(_File, table)
    if not faults:
        bounds = {name: values for name, values in table.items() if name != "non_inferior"}
        faults = [fault for name, values in bounds.items() for fault in _bound_faults(name, values, known)]
        faults += _non_inferior_faults(table.get("non_inferior"))
        faults += [] if any(table.values()) else ["holds no bound"]
    if faults:
        raise faults_error(str(path), faults)
    found = tuple(bound for name, values in bounds.items() for bound in _bounds(name, values, known))
    if "non_inferior" not in table:
        return Gate(found)
    wanted = NonInferior(**table["non_inferior"])
    reference = read_results(path.parent / wanted.report)
    try:
        check_same(requests, {name: row.request for name, row in reference.items()})
    except UserError as error:
        raise UserError(f"{path}: [non_inferior] report '{wanted.report}': {error}") from None
    return Gate(found, wanted, reference)


def _every(table: str) -> str:
    """The key that bounds each of a table's figures that is not named."""
    return "min_low" if table in LEAST else "max_share"


def _bounds(table: str, values: Mapping[str, float], known: Known) -> list[Bound]:
    names = [name for name in known.get(table, [""]) if name in values or _every(table) in values]
    return [Bound(table, name, values.get(name, values.get(_every(table), 0.0))) for name in names]


def _bound_faults(table: str, values: Mapping[str, float], known: Known) -> list[str]:
    names = [_every(table), *known.get(table, [])]
    faults = [f"unknown name '{name}' (known: {', '.join(names)})" for name in values if name not in names]
    for name, share in values.items():
        if table in LEAST and not 0 <= share < 1:
            faults.append(f"'{name}' is {share}, wanted a share from 0 to below 1 (no run can prove 1)")
        elif table == "classes" and not 0 < share <= 1:
            faults.append(f"'{name}' is {share}, wanted a share above 0 (no run can prove 0) to 1")
        elif not 0 <= share <= 1:
            faults.append(f"'{name}' is {share}, wanted a share from 0 to 1")
    return [f"[{table}]: {fault}" for fault in faults]


def _non_inferior_faults(values: dict[str, Any] | None) -> list[str]:
    if values is None:
        return []
    faults = table_faults(NonInferior, values)
    if not faults and not 0 < values["margin"] < 1:
        faults = [f"'margin' is {values['margin']}, wanted a share between 0 and 1"]
    return [f"[non_inferior]: {fault}" for fault in faults]


def judge_gate(gate: Gate, figures: Figures, results: Mapping[str, Result] | None = None) -> Outcome:
    """Every bound's ruling.  `results` (strict) are needed by a gate with a stored report to compare with.

    A bound from below passes when the interval's lower end reaches it, is missed (below) when the upper end stays under
    it, and is inconclusive between: the answers are too few.  A bound from above is judged the other way round.
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
    wanted = f"{'at least' if least else 'at most'} {_percent(bound.share)}"
    verdict = PASS if met else BELOW if missed else INCONCLUSIVE
    cause = {
        PASS: "",
        BELOW: "the whole interval misses the bound",
        INCONCLUSIVE: _open_cause(rate, bound.share, least),
    }
    return Ruling(bound.title, verdict, wanted, f"{rate} of {rate.n}", cause[verdict])


def _rule_errors(bound: Bound, figures: Figures) -> Ruling:
    met = figures.failed <= bound.share * figures.attempted
    cause = "" if met else "requests got no answer; mend the server and run again"
    found = f"{figures.failed} of {figures.attempted}"
    return Ruling(bound.title, PASS if met else BELOW, f"at most {_percent(bound.share)}", found, cause)


def _open_cause(rate: Rate, bound: float, least: bool) -> str:
    """Why the interval holds the bound, and how many answers would move it off."""
    if rate.share is None:
        return "nothing was counted"
    needed = answers_needed(rate.share, bound)
    cause = f"the interval holds the bound: {rate.n} answers are too few"
    if needed is None:
        return cause
    more = f"about {needed}" if needed > rate.n else "more concepts"
    shown = "met" if (rate.share > bound) == least else "missed"
    return f"{cause}; {more} would show that it is {shown} if the share stayed at {_percent(rate.share)}"


def _rule_pair(wanted: NonInferior, paired: Paired) -> Ruling:
    low, high = paired.clustered_low, paired.clustered_high
    verdict = PASS if low >= -wanted.margin else BELOW if high < -wanted.margin else INCONCLUSIVE
    cause = {PASS: "", BELOW: f"lost: {', '.join(paired.lost[:10])}", INCONCLUSIVE: f"{paired.n} pairs are too few"}
    if paired.unanswered:
        cause[INCONCLUSIVE] += f"; {len(paired.unanswered)} requests lack an answer in one run"
    found = f"{paired}; concept by concept {100 * low:+.1f} to {100 * high:+.1f}"
    bound = f"no more than {_percent(wanted.margin)} worse"
    return Ruling(f"non_inferior {wanted.report}", verdict, bound, found, cause[verdict])


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def to_markdown(outcome: Outcome) -> str:
    """A short table for a CI job's page: what did not pass comes first."""
    passed = sum(ruling.verdict == PASS for ruling in outcome.rulings)
    lines = [f"### Gate: {outcome.verdict} ({passed} of {len(outcome.rulings)} bounds met)", ""]
    lines += ["| bound | wanted | found | verdict |", "|---|---|---|---|"]
    for ruling in sorted(outcome.rulings, key=lambda ruling: ruling.verdict == PASS):
        verdict = f"**{ruling.verdict}**: {ruling.cause}" if ruling.cause else ruling.verdict
        cells = (ruling.title, ruling.wanted, ruling.found, verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
