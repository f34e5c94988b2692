"""Facts of each split -> rows, each proved: its record meets the JSON Schema and its response reads back as it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    """Raises UserError, with the cure, when a split has no row."""
    empty = [name for name in SPLITS if not dataset[name]]
    if empty:
        raise UserError(f"no row falls into {' and '.join(empty)} {cure}")


def check_rows(contract: Contract, dataset: Dataset) -> None:
    """Raises UserError naming the rows that break the contract's JSON Schema or do not read back as their record.

    Rows that share a record object share the proof; ids and requests are looked at in every row.
    """
    faults = list(row_faults(contract, _as_read(_distinct(dataset))))
    seen: set[str] = set()
    for row in (row for rows in dataset.values() for row in rows):
        faults += [f"row '{row.id}': stands twice"] if row.id in seen else []
        faults += [] if row.request.strip() else [f"row '{row.id}': its request is empty"]
        seen.add(row.id)
    if faults:
        raise faults_error("dataset", first_faults(faults))


def _distinct(dataset: Dataset) -> Iterator[Example]:
    proved: set[int] = set()
    for row in (row for rows in dataset.values() for row in rows):
        if id(row.record) not in proved:
            proved.add(id(row.record))
            yield row


def _as_read(rows: Iterator[Example]) -> Iterator[dict[str, Any]]:
    """What a reader of the file will see: a tuple has become a list."""
    return ({**vars(row), "keywords": list(row.keywords)} for row in rows)


def concept_groups(sides: Sides) -> dict[str, list[dict[str, Any]]]:
    """The groups of each split with all their names, in order: with them the certificate proves that none leaks."""
    groups: dict[str, dict[str, set[str]]] = {name: {} for name in sides}
    for name, facts in sides.items():
        for fact in facts:
            groups[name].setdefault(fact.group, set()).update(fact.names)
    return {
        side: [{"group": group, "names": sorted(names)} for group, names in sorted(members.items())]
        for side, members in groups.items()
    }


def summary(dataset: Dataset) -> str:
    """Rows (and concepts) by category and split, as a text table."""
    categories = sorted({row.category for rows in dataset.values() for row in rows})
    lines = [f"{'rows (concepts)':24}" + "".join(f"{name:>16}" for name in dataset)]
    for category in [*categories, None]:  # None: of all together
        cells = ""
        for rows in dataset.values():
            chosen = [row for row in rows if category in (row.category, None)]
            cells += f"{f'{len(chosen)} ({len({row.concept for row in chosen})})':>16}"
        lines.append(f"{category or 'all':24}{cells}")
    return "\n".join(lines)
