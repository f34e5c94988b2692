"""A task -> clean examples: answers in the right form, made from facts or generated words."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contract.contract import Contract, Record
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Kind, Pairs, Prose
from plumbing.errors import faults_error
from plumbing.jsonl import first_faults, read_lines
from plumbing.toml_file import read_toml

GENERATED = 60  # clean answers of a task that has no facts


def clean_examples(contract: Contract, task: Path) -> tuple[list[Example], str]:
    """A task's clean answers, and their source: its facts, or generated words where it has no facts."""
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
    """A fact's answer, each section by one of its templates; None where none can be filled or the contract refuses it."""
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
    """The template's text; a list where the whole template is one field that holds a list."""
    whole = fields.get(template[1:-1]) if template[:1] + template[-1:] == "{}" else None
    if isinstance(whole, list):
        return whole
    joined = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in fields.items()}
    return template.format_map(joined)


def generated_example(contract: Contract, number: int) -> Example:
    """A clean answer of words without a meaning, of another size for every number."""
    words = _words(number)
    record = {section.name: _value(section.kind, words, number) for section in contract.sections}
    return Example(
        f"generated/{number}", next(words), "generated", "What is it?", "", record, contract.write(record), ()
    )


def _words(number: int) -> Iterator[str]:
    """Words that no language has, each once."""
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
