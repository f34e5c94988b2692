"""Dataset + conversations -> nothing, or a UserError naming the rows that make a figure worthless.

The prompt must not contain the expected answer, nor the answer the prompt.  The rows must be those that the dataset's
manifest counts.  No concept of the test split may be in another split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from contract.base import Message
from contract.contract import Contract
from contract.example import SPLITS, Example
from contract.kinds import Choice, Fixed
from plumbing.errors import UserError, faults_error
from plumbing.handover import Manifest
from plumbing.jsonl import first_faults
from plumbing.wording import texts_of

LONG = 16  # words in a row that two texts share by copying; with 8 shots the shipped dataset's frames share up to 10
WHOLE = 6  # words: a whole section this long or longer must not be in the prompt; a shorter one may be the concept's own name


def check_dataset(folder: Path, manifest: Manifest, splits: Mapping[str, Sequence[Example]]) -> None:
    """Check the dataset itself.  Raises UserError."""
    counts = {split: (len(rows), manifest["counts"].get(split, "none")) for split, rows in splits.items()}
    faults = [f"{split}.jsonl has {n} rows, its manifest counts {m}" for split, (n, m) in counts.items() if n != m]
    faults += concept_faults(read_concepts(folder / "concepts.json"), splits)
    if faults:
        raise faults_error(f"{folder}: not a fair measure", first_faults(faults))


def check_prompts(contract: Contract, asked: Iterable[tuple[Example, Sequence[Message]]]) -> None:
    """Check each conversation against its expected answer.  Raises UserError naming the rows."""
    spec = words(contract.system_prompt())
    faults = [
        f"'{example.id}': {fault}" for example, turns in asked for fault in _faults(contract, spec, example, turns)
    ]
    if faults:
        raise faults_error("not a fair measure", first_faults(faults))


def read_concepts(path: Path) -> dict[str, list[dict[str, Any]]]:
    """concepts.json: split -> groups of names; empty when the dataset has none.  Raises UserError when it is broken."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {
            split: [{"group": str(g["group"]), "names": list(g["names"])} for g in table[split]] for split in SPLITS
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise UserError(f"{path}: not the concepts of a dataset; make the dataset again") from None


def concept_faults(
    concepts: Mapping[str, Sequence[Mapping[str, Any]]], splits: Mapping[str, Sequence[Example]]
) -> list[str]:
    """Concepts in two splits, by any of their names or as a row's own, and rows whose concept their split does not list."""
    names = {split: {str(name).casefold(): "" for g in groups for name in (g["group"], *g["names"])}
             for split, groups in concepts.items()}  # fmt: skip
    faults = []
    for split, rows in splits.items():
        listed = names.setdefault(split, {})
        known = set(listed)
        for row in rows:
            if known and row.concept.casefold() not in known:
                faults.append(
                    f"'{row.id}' of {split} is about '{row.concept}', which concepts.json does not list there"
                )
            listed[row.concept.casefold()] = listed.get(row.concept.casefold()) or row.id
    for one, other in combinations(names, 2):
        for name in sorted(names[one].keys() & names[other].keys()):
            rows = [f"'{names[split][name]}'" for split in (one, other) if names[split][name]]
            faults.append(f"the concept '{name}' is in {one} and in {other}" + (f": {', '.join(rows)}" if rows else ""))
    return faults


def _faults(contract: Contract, spec: list[str], example: Example, turns: Sequence[Message]) -> list[str]:
    """Where prompt and expected answer repeat each other.  Fixed texts, options and the form are in both on purpose."""
    prompt = [*spec, *words("\n".join(turn["content"] for turn in turns))]  # the model's own SYSTEM is the spec
    within, faults = _finder(prompt), []
    for section in contract.sections:
        if isinstance(section.kind, Fixed | Choice):
            continue
        for text in texts_of(example.record[section.name]):
            part = within(words(text))
            if part:
                faults.append(f"the prompt contains the expected {section.name}: '{' '.join(part)}'")
    request, answer = words(example.request), words(example.response)
    if len(request) >= 3 and request != words(example.concept) and _holds(answer, request):
        faults.append(f"the expected answer repeats the request: '{example.request}'")
    if _holds(answer, spec):
        faults.append("the expected answer repeats the system prompt")
    return faults


def _finder(prompt: list[str]) -> Callable[[list[str]], list[str]]:
    """Text -> its first LONG words in a row that `prompt` holds, or the whole text if it has WHOLE words or more; else []."""
    runs = {tuple(prompt[i : i + LONG]) for i in range(len(prompt) - LONG + 1)}

    def find(text: list[str]) -> list[str]:
        if WHOLE <= len(text) < LONG and _holds(prompt, text):
            return text
        starts = range(len(text) - LONG + 1)
        return next((text[i : i + LONG] for i in starts if tuple(text[i : i + LONG]) in runs), [])

    return find


def words(text: str) -> list[str]:
    """Its words in lower case, so that neither punctuation nor spacing hides a copy."""
    return re.findall(r"\w+", text.casefold())


def _holds(text: list[str], part: list[str]) -> bool:
    return bool(part) and f" {' '.join(part)} " in f" {' '.join(text)} "
