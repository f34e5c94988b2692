"""One dataset row: a request and the record that answers it.  `read_examples` checks every row and tells all faults at once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from contract.base import Message
from contract.contract import Contract, Record
from contract.errors import UserError, faults_error

SPLITS = ("train", "validation", "test")
SHOWN_FAULTS = 10


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
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


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


def row_faults(contract: Contract, rows: Iterable[dict[str, Any]]) -> list[str]:
    """Every fault of every row: broken schema, or a response that is not the record's own text."""
    validator = jsonschema.Draft202012Validator(row_schema(contract))
    faults = []
    for number, row in enumerate(rows, 1):
        found = [f"{'.'.join(map(str, e.path)) or 'row'}: {e.message[:120]}" for e in validator.iter_errors(row)]
        if not found:
            reading = contract.read(row["response"])
            if reading.violations or reading.record != row["record"]:
                found = [f"response does not read back as the record: {[v.cls for v in reading.violations]}"]
        faults += [f"row {number}: {fault}" for fault in found]
    return faults


def read_examples(path: Path, contract: Contract) -> list[Example]:
    """The checked rows of a JSONL file.  Raises UserError with the first faults and their number."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `make dataset` writes train, validation and test.jsonl") from None
    rows, faults = [], []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            faults.append(f"line {number}: not JSON: {error}")
    faults = faults or row_faults(contract, rows)
    if not rows and not faults:
        faults = ["holds no row"]
    if faults:
        more = f"and {len(faults) - SHOWN_FAULTS} more" if len(faults) > SHOWN_FAULTS else ""
        raise faults_error(str(path), [*faults[:SHOWN_FAULTS], *([more] if more else [])])
    return [Example(**{**row, "keywords": tuple(row["keywords"])}) for row in rows]


def read_splits(folder: Path, contract: Contract) -> dict[str, list[Example]]:
    """All three splits of a dataset folder."""
    return {split: read_examples(folder / f"{split}.jsonl", contract) for split in SPLITS}
