"""Tasks -> is the judge right?  Faults are put into clean answers; misses and false alarms counted.

python -m eval.selftest                   # the shipped tasks
python -m eval.selftest my_task.toml      # a task of your own
The exit code is 2 when a fault is missed or a clean answer fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.contract import TASKS, Contract, load_contract, task_path
from eval.judge.verdict import CLASSES, judge
from eval.selftest.clean_examples import clean_examples
from eval.selftest.mutations import mutants
from models.answers import Answer
from plumbing.errors import run

MUTATED = 16  # clean answers of a task that get every fault; all of them are also judged without one


@dataclass(frozen=True)
class Detection:
    """How many faults of one class were found."""

    mutants: int = 0
    detected: int = 0  # the class is among the violations
    primary: int = 0  # the answer counts under this class
    false_alarms: int = 0  # clean answers that show the class

    @property
    def missed(self) -> int:
        return self.mutants - self.detected

    def __add__(self, other: Detection) -> Detection:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Detection(*(one + two for one, two in pairs))


@dataclass(frozen=True)
class TaskResult:
    """One task's self-test."""

    task: str
    source: str  # where its clean answers come from
    clean: int
    failed: int  # clean answers that do not pass all three readings
    classes: dict[str, Detection]
    missed: tuple[str, ...]  # the first missed faults, for a person to read

    @property
    def passed(self) -> bool:
        return self.failed == 0 and all(not d.missed and not d.false_alarms for d in self.classes.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m eval.selftest", description="Check that the judge finds every fault."
    )
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="shipped tasks or TOML files (default: all shipped)")
    parser.add_argument("--json", action="store_true", help="print the figures for a program")
    args = parser.parse_args()
    tasks = args.tasks or sorted(path.stem for path in TASKS.glob("*.toml"))
    results = [check(load_contract(task), task_path(task)) for task in tasks]
    print(to_json(results) if args.json else to_text(results))
    return 0 if all(result.passed for result in results) else 2


def check(contract: Contract, task: Path) -> TaskResult:
    """Judge the task's clean answers, and every mutant of MUTATED of them, evenly spaced."""
    examples, source = clean_examples(contract, task)
    verdicts = [judge(contract, example, Answer(example.response)) for example in examples]
    classes = {cls: Detection() for cls in CLASSES}
    for cls, count in Counter(cls for verdict in verdicts for cls in {v.cls for v in verdict.violations}).items():
        classes[cls] += Detection(false_alarms=count)
    missed = []
    for example in examples[:: max(1, len(examples) // MUTATED)]:
        for mutant in mutants(contract, example):
            verdict = judge(contract, example, mutant.answer)
            found = {violation.cls for violation in verdict.violations}
            classes[mutant.cls] += Detection(1, mutant.cls in found, verdict.primary == mutant.cls)
            if mutant.cls not in found:
                shown = ", ".join(sorted(found)) or "nothing"
                missed.append(f"{mutant.cls}: {mutant.what}: found {shown} in {example.id}")
    failed = sum(not (v.strict and v.loose and v.lenient) for v in verdicts)
    return TaskResult(contract.name, source, len(examples), failed, classes, tuple(missed[:20]))


def to_text(results: Sequence[TaskResult]) -> str:
    """A line for each class over all tasks, then a line for each task, then the missed faults."""
    lines = [f"{'class':20}{'mutants':>9}{'detected':>10}{'as primary':>12}{'missed':>8}{'false alarms':>14}"]
    for cls in CLASSES:
        d = sum((result.classes[cls] for result in results), Detection())
        lines.append(
            f"{cls:20}{d.mutants:9}{_share(d.detected, d.mutants):>10}{_share(d.primary, d.mutants):>12}{d.missed:8}{d.false_alarms:14}"
        )
    for result in results:
        clean = f"{result.failed} of {result.clean} clean answers fail ({result.source})"
        faults = sum(d.mutants for d in result.classes.values())
        missed = sum(d.missed for d in result.classes.values())
        lines.append(
            f"{result.task}: {clean}, {missed} of {faults} faults missed: {'passed' if result.passed else 'FAILED'}"
        )
        lines += [f"  missed {one}" for one in result.missed]
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def to_json(results: Sequence[TaskResult]) -> str:
    rows = [dataclasses.asdict(result) | {"passed": result.passed} for result in results]
    return json.dumps(rows, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    run(main)
