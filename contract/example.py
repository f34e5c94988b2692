"""One dataset row: a request and the record that answers it.

`read_examples` checks every row of a file and reports all faults at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from contract.base import Message
from contract.contract import Contract, Record
from plumbing.errors import UserError, faults_error
from plumbing.jsonl import first_faults, read_lines

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Example:
    id: str
    concept: str
    category: str
    request: str  # the user's words
    system: str  # the system prompt of the row, "" for none
    record: Record
    response: str  # contract.write(record)
    keywords: tuple[str, ...]  # what an acceptable answer should contain

    def messages(self) -> list[Message]:
        """The turns before the answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.request}]

    def to_json(self) -> str:
        return json.dumps(vars(self), ensure_ascii=False)


def row_schema(contract: Contract) -> dict[str, Any]:
    """JSON Schema of a dataset row of this contract."""
    text = {"type": "string", "minLength": 1}
    properties = {field.name: text for field in dataclasses.fields(Example)} | {
        "system": {"type": "string"},
        "record": contract.json_schema(),
        "keywords": {"type": "array", "items": text},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def row_faults(contract: Contract, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Every fault of every row: a broken schema, a repeated id, a response that is not the record's text."""
    validator = jsonschema.Draft202012Validator(row_schema(contract))
    ids: set[str] = set()
    for number, row in enumerate(rows, 1):
        found = [f"{'.'.join(map(str, e.path)) or 'row'}: {e.message[:120]}" for e in validator.iter_errors(row)]
        if not found:
            reading = contract.read(row["response"])
            if reading.violations or reading.record != row["record"]:
                found = [f"response does not read back as the record: {[v.cls for v in reading.violations]}"]
            if row["id"] in ids:
                found.append(f"id '{row['id']}' appears twice")
            ids.add(row["id"])
        yield from (f"row {number}: {fault}" for fault in found)


def read_examples(path: Path, contract: Contract) -> list[Example]:
    """The checked rows of a JSONL file.  Raises UserError with the first faults and how many there are."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; `make dataset` writes train, validation and test.jsonl")
    lines = list(read_lines(path))
    rows = [row for _, row, _ in lines]
    faults = [f"line {number}: {fault}" for number, _, fault in lines if fault] or list(row_faults(contract, rows))
    if not rows:
        faults = ["holds no row"]
    if faults:
        raise faults_error(str(path), first_faults(faults))
    return [Example(**{**row, "keywords": tuple(row["keywords"])}) for row in rows]


def read_splits(folder: Path, contract: Contract) -> dict[str, list[Example]]:
    """All three splits of a dataset folder."""
    return {split: read_examples(folder / f"{split}.jsonl", contract) for split in SPLITS}
