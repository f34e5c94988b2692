"""Is the judge right?  Every failure class put into clean answers of every shipped task: found or missed, and false alarms.

python -m eval.selftest                   # the shipped tasks
python -m eval.selftest my_task.toml      # a task of your own
Exit code 2 when one mutant is missed or one clean answer fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.contract import TASKS, Contract, Record, load_contract, task_path
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Kind, Pairs, Prose
from eval.judge.verdict import CLASSES, Verdict, judge
from eval.selftest.mutations import Mutant, mutants
from models.answers import Answer
from plumbing.errors import faults_error, run
from plumbing.jsonl import first_faults, read_lines
from plumbing.toml_file import read_toml

MUTATED = 16  # clean answers a task that get every fault; all are judged as they are
GENERATED = 60  # clean answers of a task whose facts are not at hand


@dataclass(frozen=True)
class Detection:
    """What became of one class's faults."""

    mutants: int = 0
    detected: int = 0  # the class is among the violations
    primary: int = 0  # and is the one that the answer counts under
    false_alarms: int = 0  # clean answers that show the class

    @property
    def missed(self) -> int:
        return self.mutants - self.detected

    def __add__(self, other: Detection) -> Detection:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Detection(*(one + two for one, two in pairs))


@dataclass(frozen=True)
class Result:
    """One task's self-test."""

    task: str
    source: str  # where its clean answers come from
    clean: int
    failed: int  # clean answers that do not pass all three readings
    classes: dict[str, Detection]
    missed: tuple[str, ...]  # the first of them, for a person to look at

    @property
    def passed(self) -> bool:
        return self.failed == 0 and all(not d.missed and not d.false_alarms for d in self.classes.values())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m eval.selftest", description="Does the judge find every fault?")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="shipped tasks or TOML files (default: all shipped)")
    parser.add_argument("--json", action="store_true", help="print the figures for a program")
    args = parser.parse_args()
    tasks = args.tasks or sorted(path.stem for path in TASKS.glob("*.toml"))
    results = [check(load_contract(task), task_path(task)) for task in tasks]
    print(to_json(results) if args.json else table(results))
    return 0 if all(result.passed for result in results) else 2


def check(contract: Contract, task: Path) -> Result:
    """Judge the task's clean answers, and every mutant of MUTATED of them spread over all."""
    examples, source = clean_examples(contract, task)
    verdicts = [judge(contract, example, Answer(example.response)) for example in examples]
    classes = {cls: Detection() for cls in CLASSES}
    for cls, count in Counter(cls for verdict in verdicts for cls in {v.cls for v in verdict.violations}).items():
        classes[cls] += Detection(false_alarms=count)
    missed = []
    for example in examples[:: max(1, len(examples) // MUTATED)]:
        for mutant in mutants(contract, example):
            verdict = judge(contract, example, mutant.answer)
            found = _shows(verdict, mutant)
            classes[mutant.cls] += Detection(1, found, verdict.primary == mutant.cls)
            if not found:
                seen = ", ".join(sorted({v.cls for v in verdict.violations})) or "nothing"
                missed.append(f"{mutant.cls}: {mutant.what}: found {seen} in {example.id}")
    failed = sum(not (v.strict and v.loose and v.lenient) for v in verdicts)
    return Result(contract.name, source, len(examples), failed, classes, tuple(missed[:20]))


def _shows(verdict: Verdict, mutant: Mutant) -> bool:
    return not verdict.strict and mutant.cls in {violation.cls for violation in verdict.violations}


def clean_examples(contract: Contract, task: Path) -> tuple[list[Example], str]:
    """Clean answers of a task and where they come from: its facts, or words that fill the kinds where there are none."""
    data = read_toml(task).get("data", {})
    rows = list(_facts(task.parent / data["facts"])) if "facts" in data else []
    made = [_from_fact(contract, data.get("sections", {}), row, n) for n, row in enumerate(rows)]
    examples = [example for example in made if example]
    if examples:
        return examples, f"{len(rows)} facts"
    return [generated_example(contract, number) for number in range(GENERATED)], "generated words"


def _facts(path: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(path.glob("*.jsonl")) if path.is_dir() else [path] * path.is_file():
        rows = list(read_lines(file))
        faults = [f"line {number}: {fault}" for number, _, fault in rows if fault]
        faults += [f"line {number}: no '{key}'" for number, row, fault in rows if not fault
                   for key in ("id", "category", "concept") if not isinstance(row, dict) or not isinstance(row.get(key), str)]  # fmt: skip
        if faults:
            raise faults_error(str(file), first_faults(faults))
        yield from (row for _, row, _ in rows)


def _from_fact(contract: Contract, templates: dict[str, list[str]], row: dict[str, Any], turn: int) -> Example | None:
    """A fact's answer in one of its templates each; None where no template can be filled or the contract refuses."""
    fields = {k: v for k, v in row.items() if v}
    fields |= {k[:1].upper() + k[1:]: v[:1].upper() + v[1:] for k, v in fields.items() if isinstance(v, str)}
    record: Record = {s.name: s.kind.text for s in contract.sections if isinstance(s.kind, Fixed)}
    for name, texts in templates.items():
        fillable = [
            text for text in texts if all(field in fields for _, field, _, _ in string.Formatter().parse(text) if field)
        ]
        if fillable:
            record[name] = _filled(fillable[turn % len(fillable)], fields)
    try:
        response = contract.write({section.name: record[section.name] for section in contract.sections})
    except (KeyError, ValueError):
        return None
    request = f"What is {row['concept']}?"
    keywords = tuple(row.get("keywords", ()))
    return Example(row["id"], row["concept"], row["category"], request, "", record, response, keywords)


def _filled(template: str, fields: dict[str, Any]) -> Any:
    """The template's text; a list where its one hole holds one."""
    whole = fields.get(template[1:-1]) if template[:1] + template[-1:] == "{}" else None
    if isinstance(whole, list):
        return whole
    spoken = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in fields.items()}
    return template.format_map(spoken)


def generated_example(contract: Contract, number: int) -> Example:
    """A clean answer of words that mean nothing, of another size for every number."""
    words = _words(number)
    record = {section.name: _value(section.kind, words, number) for section in contract.sections}
    return Example(
        f"generated/{number}", next(words), "generated", "What is it?", "", record, contract.write(record), ()
    )


def _words(number: int) -> Iterator[str]:
    """Words that no language has, none twice."""
    parts = ("ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "zu")
    for count in itertools.count(number * 1000):
        yield "".join(parts[int(digit)] for digit in str(count).zfill(3))


def _value(kind: Kind, words: Iterator[str], number: int) -> Any:
    match kind:
        case Prose(min_words=low, max_words=high):
            return " ".join(itertools.islice(words, low + number % (high - low + 1))).capitalize() + "."
        case Items(min_items=low, max_items=high):
            return [" ".join(itertools.islice(words, 3)) for _ in range(low + number % (high - low + 1))]
        case Pairs(labels=labels, min_items=low, max_items=high):
            return [{label: next(words) + "." for label in labels} for _ in range(low + number % (high - low + 1))]
        case Choice(options=options):
            return options[number % len(options)]
        case Fixed(text=text):
            return text


def table(results: Sequence[Result]) -> str:
    """A line a class over all tasks, then a line a task, then what was missed."""
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


def to_json(results: Sequence[Result]) -> str:
    rows = [dataclasses.asdict(result) | {"passed": result.passed} for result in results]
    return json.dumps(rows, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    run(main)
