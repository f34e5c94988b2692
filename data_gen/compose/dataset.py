"""Facts of each split -> rows, all checked by the contract; and the tables that count them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from contract.contract import Contract
from contract.example import SPLITS, Example, row_faults
from data_gen.compose.rows import ROWS_A_CONCEPT, compose, rows_each
from data_gen.compose.task_data import TaskData
from data_gen.facts import Fact
from plumbing.errors import UserError, faults_error
from plumbing.jsonl import first_faults

Dataset = Mapping[str, Sequence[Example]]  # split -> rows
Sides = dict[str, list[Fact]]  # split -> facts


def make_dataset(contract: Contract, data: TaskData, sides: Sides, count: int | None, seed: int) -> Dataset:
    """The composed and checked rows of every split."""
    facts = [fact for members in sides.values() for fact in members]
    requests = sum(map(len, data.styles().values()))
    rows = rows_each(facts, count, min(ROWS_A_CONCEPT, requests))
    dataset = {
        name: [row for fact in members for row in compose(contract, data, fact, rows[fact.id], seed)]
        for name, members in sides.items()
    }
    cure = "add facts, try another --seed" + (f" or raise --count from {count}" if count else "")
    check_splits(dataset, f"of {len(facts)} facts: {cure}")
    check_rows(contract, dataset)
    return dataset


def check_splits(dataset: Dataset, cure: str) -> None:
    """Raises UserError, with the cure, if a split has no row."""
    empty = [name for name in SPLITS if not dataset[name]]
    if empty:
        raise UserError(f"no row falls into {' and '.join(empty)} {cure}")


def check_rows(contract: Contract, dataset: Dataset) -> None:
    """Raises UserError that names the rows that break the contract's JSON Schema or do not read back as their record.

    Rows that share a record object share the proof; ids and requests are checked in every row.
    """
    distinct: dict[int, Example] = {}  # of the rows that share a record the first
    ids: set[str] = set()
    faults: list[str] = []
    for row in (row for rows in dataset.values() for row in rows):
        distinct.setdefault(id(row.record), row)
        faults += [f"row '{row.id}': appears twice"] if row.id in ids else []
        faults += [] if row.request.strip() else [f"row '{row.id}': its request is empty"]
        ids.add(row.id)
    as_read = ({**vars(row), "keywords": list(row.keywords)} for row in distinct.values())  # JSON has no tuple
    faults = [*row_faults(contract, as_read), *faults]
    if faults:
        raise faults_error("dataset", first_faults(faults))


def concept_groups(sides: Sides) -> dict[str, list[dict[str, Any]]]:
    """The groups of each split with all their names, in order, as the leak certificate needs them."""
    groups: dict[str, dict[str, set[str]]] = {name: {} for name in sides}
    for name, facts in sides.items():
        for fact in facts:
            groups[name].setdefault(fact.group, set()).update(fact.names)
    return {
        side: [{"group": group, "names": sorted(names)} for group, names in sorted(members.items())]
        for side, members in groups.items()
    }


def by_category(dataset: Dataset) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each category, then all of them: the number of rows and concepts of each split, then of the whole dataset."""
    rows: Counter[tuple[str | None, str | None]] = Counter()  # (category, split), None for all of them
    concepts: dict[tuple[str | None, str | None], set[str]] = {}
    for split, row in ((split, row) for split, members in dataset.items() for row in members):
        for key in itertools.product((row.category, None), (split, None)):
            rows[key] += 1
            concepts.setdefault(key, set()).add(row.concept)
    names = sorted({category for category, _ in rows if category is not None})
    return [
        (name or "all", [(rows[name, split], len(concepts.get((name, split), ()))) for split in (*dataset, None)])
        for name in (*names, None)
    ]


def summary(dataset: Dataset) -> str:
    """Rows (and concepts) by category and split, as a text table."""
    lines = [f"{'rows (concepts)':24}" + "".join(f"{name:>16}" for name in dataset)]
    for category, counts in by_category(dataset):
        lines.append(f"{category:24}" + "".join(f"{f'{rows} ({concepts})':>16}" for rows, concepts in counts[:-1]))
    return "\n".join(lines)
