"""An experiment's TOML -> its runs: what each one sets, all settings, the key that names its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune.config import Settings, load_settings
from plumbing.errors import UserError, faults_error
from plumbing.toml_file import fill, read_toml, table_faults

MOST_RUNS = 1000  # each takes minutes; more is surely a mistake


@dataclass(frozen=True)
class ExperimentPlan:
    """The keys of an experiment's TOML.  Every table of `runs` is combined with every point of `grid`."""

    preset: str  # a shipped preset's name or a preset's TOML
    runs: list[dict[str, Any]] = field(default_factory=list)  # for settings that belong together
    grid: dict[str, list[Any]] = field(default_factory=dict)  # setting -> its values; all combinations
    set: dict[str, Any] = field(default_factory=dict)  # for all runs
    type: str = "q4_k_m"  # of the GGUF that is judged
    limit: int = 0  # validation rows that are asked; 0: all


@dataclass(frozen=True)
class Run:
    """One training of a fresh base."""

    changes: dict[str, Any]  # what differs between runs
    overrides: list[str]  # everything it sets, in the form of `--set`
    settings: Settings

    @property
    def label(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.changes.items())

    def key(self, dataset: str) -> str:
        """The same for the same settings and data, whichever file they come from."""
        text = json.dumps([dataclasses.asdict(self.settings), dataset], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_plan(path: Path) -> tuple[ExperimentPlan, list[Run]]:
    """The plan and its runs in order.  Every fault of the file is in the one UserError raised."""
    values = read_toml(path)
    faults = table_faults(ExperimentPlan, values)
    if not faults:
        plan = fill(ExperimentPlan, values, str(path))
        faults = _faults(plan)
    if faults:
        raise faults_error(str(path), dict.fromkeys(faults))
    runs: list[Run] = []
    for changes in expand(plan):
        try:
            overrides = [f"{key}={as_toml(value)}" for key, value in (plan.set | changes).items()]
            runs.append(Run(changes, overrides, load_settings(plan.preset, overrides)))
        except UserError as error:
            faults.append(f"run {len(runs) + len(faults) + 1}: {error}")
    faults += _duplicates(runs)
    if faults:
        raise faults_error(str(path), faults)
    return plan, runs


def expand(plan: ExperimentPlan) -> list[dict[str, Any]]:
    """What each run sets: every table of `runs` at every point of `grid`, the last key changing fastest.

    >>> expand(ExperimentPlan("tiny", grid={"lora_r": [4, 8], "batch": [1, 2]}))[:3]
    [{'lora_r': 4, 'batch': 1}, {'lora_r': 4, 'batch': 2}, {'lora_r': 8, 'batch': 1}]
    """
    points = [dict(zip(plan.grid, values, strict=True)) for values in itertools.product(*plan.grid.values())]
    return [run | point for run in plan.runs or [{}] for point in points]


def as_toml(value: Any) -> str:
    """A setting's value in TOML.  A date, which no setting can be, becomes text and is refused later.

    >>> as_toml(["q_proj"]), as_toml(1e-05), as_toml(True)
    ('["q_proj"]', '1e-05', 'true')
    """
    return json.dumps(value, ensure_ascii=False, default=str)


def _faults(plan: ExperimentPlan) -> list[str]:
    """Wrong keys and types, each named once even when several runs have it."""
    faults = [] if plan.runs or plan.grid else ["no run: give [grid] lists of values, or [[runs]] tables of settings"]
    faults += ["'limit' is below 0"] if plan.limit < 0 else []
    faults += [f"'grid': '{key}' has no value" for key, values in plan.grid.items() if not values]
    count = math.prod(map(len, plan.grid.values())) * max(1, len(plan.runs))
    faults += [f"means {count} runs, at most {MOST_RUNS}"] if count > MOST_RUNS else []
    both = sorted({key for run in plan.runs for key in run} & plan.grid.keys())
    faults += [f"'{key}' is in both 'grid' and 'runs'" for key in both]
    placed = [("set", key, value) for key, value in plan.set.items()]
    placed += [("grid", key, value) for key, values in plan.grid.items() for value in values]
    placed += [(f"runs[{n}]", key, value) for n, run in enumerate(plan.runs, 1) for key, value in run.items()]
    for where, key, value in placed:
        wrong = [fault for fault in table_faults(Settings, {key: value}) if not fault.startswith("missing key")]
        faults += [f"'{where}': {fault}" for fault in wrong]
    return faults


def _duplicates(runs: list[Run]) -> list[str]:
    """Runs with the same settings: the second would be a copy, not a measurement."""
    first: dict[str, int] = {}
    faults = []
    for number, run in enumerate(runs, 1):
        earlier = first.setdefault(run.key(""), number)
        if earlier != number:
            faults.append(f"runs {earlier} and {number} are the same: {run.label or 'nothing is set'}")
    return faults
