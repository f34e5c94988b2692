"""A task's TOML -> Contract: the form that trainer, server and judge agree on.

    contract = load_contract("terminology")
    text = contract.write(record)            # what the model is trained to answer
    contract.read(text).record == record     # what the judge reads back, with violations if there are any
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UserError, faults_error, unknown_key
from contract.kinds import KINDS, Kind
from contract.toml_file import read_toml, table_faults

TASKS = Path(__file__).parent / "tasks"
Record = dict[str, Any]  # section name -> value, of the type that the section's kind takes


@dataclass(frozen=True)
class Violation:
    """One broken rule: the section's name ("" for the answer as a whole), the failure class, the text it was found in."""

    section: str
    cls: str
    found: str


@dataclass(frozen=True)
class Reading:
    """What a response says: the record as far as it can be read, and every rule it breaks."""

    record: Record
    violations: tuple[Violation, ...]

    @property
    def adheres(self) -> bool:
        return not self.violations


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    kind: Kind


@dataclass(frozen=True)
class Contract:
    """The sections in order, the heading each begins with, and the separator between them."""

    name: str
    about: str
    heading: str
    separator: str
    sections: tuple[Section, ...]

    def head(self, section: Section) -> str:
        """The heading without the white space that parts it from an inline body."""
        return self.heading.format(title=section.title).rstrip(" ")

    def gap(self, section: Section) -> str:
        """What stands between a section's head and its body."""
        return "\n" if section.kind.block else self.heading[len(self.heading.rstrip(" ")) :]

    def system_prompt(self) -> str:
        """The text that tells any model, tuned or not, the whole form."""
        lines = [
            f"{self.about} Answer with exactly these {len(self.sections)} sections, in this order and with these headings, "
            "and nothing before or after them."
        ]
        for section in self.sections:
            lines.append(self.head(section) + self.gap(section) + section.kind.describe())
        return "\n".join(lines)

    def write(self, record: Record) -> str:
        """The response text of a record.

        Raises ValueError naming every section whose value is missing, unknown, of the wrong form or outside its bounds.
        """
        faults = [f"unknown section '{name}'" for name in record if name not in {s.name for s in self.sections}]
        parts = []
        for section in self.sections:
            try:
                if section.name not in record:
                    raise ValueError("missing")
                parts.append(self.head(section) + self.gap(section) + _body(section, record[section.name]))
            except ValueError as error:
                faults.append(f"section '{section.name}': {error}")
        if faults:
            raise ValueError("; ".join(faults))
        return self.separator.join(parts)

    def read(self, text: str) -> Reading:
        """Read a response strictly: no violation means that `write(record)` gives the very same text.

        One leading space is the wire format of Mistral's tokenizer and is no fault.
        """
        from contract.reading import read_strictly

        return read_strictly(self, text.removeprefix(" "))

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of a record: one required property a section, in order."""
        return {
            "type": "object",
            "properties": {section.name: section.kind.json_schema() for section in self.sections},
            "required": [section.name for section in self.sections],
            "additionalProperties": False,
        }

    def grammar(self) -> str:
        """GBNF for llama.cpp.  What it accepts has no structural violation; it takes no leading space."""
        import json

        separator = json.dumps(self.separator)
        rules = [f"root ::= {f' {separator} '.join(f's{i}' for i in range(len(self.sections)))}"]
        for number, section in enumerate(self.sections):
            start = json.dumps(self.head(section) + self.gap(section), ensure_ascii=False)
            rules.append(f"s{number} ::= {start} {section.kind.gbnf()}")
        return "\n".join(rules) + "\n"


def _body(section: Section, value: Any) -> str:
    """The body as written, proved by reading it back; ValueError says what is wrong with the value."""
    body = section.kind.write(value)
    faults = section.kind.read(body)[1]
    if faults:
        raise ValueError(", ".join(f"{cls}: wanted {section.kind.describe()}, found {found!r}" for cls, found in faults))
    return body


def task_path(task: str) -> Path:
    """A shipped task's name or a path -> the TOML's path.  Raises UserError naming the shipped tasks."""
    path = Path(task) if task.endswith(".toml") else TASKS / f"{task}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in TASKS.glob("*.toml")))
        raise UserError(f"{task}: no such task (shipped: {shipped}; or a path that ends in .toml)")
    return path


def load_contract(task: str | Path) -> Contract:
    """The contract of a shipped task's name or a task file.  Raises UserError with all faults of the file at once."""
    path = task_path(str(task))
    table = read_toml(path)
    faults = _table_faults(table)
    if faults:
        raise faults_error(str(path), faults)
    contract = Contract(
        table["name"],
        table["about"],
        table["heading"],
        table["separator"],
        tuple(_section(row) for row in table["section"]),
    )
    faults = _form_faults(contract)
    if faults:
        raise faults_error(str(path), faults)
    return contract


def _section(row: dict[str, Any]) -> Section:
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items() if key not in _SECTION_KEYS}
    return Section(row["name"], row["title"], KINDS[row["kind"]](**settings))


_SECTION_KEYS = ("name", "title", "kind")
_TASK_KEYS = {"name": str, "about": str, "heading": str, "separator": str, "section": list, "data": dict}


def _table_faults(table: dict[str, Any]) -> list[str]:
    faults = [unknown_key(key, _TASK_KEYS) for key in table if key not in _TASK_KEYS]
    for key, kind in _TASK_KEYS.items():
        if key not in table:
            faults += [] if key == "data" else [f"missing key '{key}'"]
        elif not isinstance(table[key], kind):
            faults.append(f"'{key}' is {table[key]!r}, wanted {kind.__name__}")
    rows = table.get("section", [])
    if isinstance(rows, list):
        for number, row in enumerate(rows, 1):
            faults += _section_faults(number, row)
    return faults


def _section_faults(number: int, row: Any) -> list[str]:
    if not isinstance(row, dict):
        return [f"section {number}: wanted a table"]
    where = f"section {number} '{row.get('name', '?')}'"
    faults = [f"{where}: missing key '{key}'" for key in _SECTION_KEYS if not isinstance(row.get(key), str)]
    if row.get("kind") not in KINDS:
        return [*faults, f"{where}: unknown kind '{row.get('kind')}' (kinds: {', '.join(KINDS)})"]
    if faults:
        return faults
    kind = KINDS[row["kind"]]
    faults = table_faults(kind, {key: value for key, value in row.items() if key not in _SECTION_KEYS})
    if not faults:
        try:
            _section(row)
        except ValueError as error:
            faults = [str(error)]
    return [f"{where}: {fault}" for fault in faults]


def _form_faults(contract: Contract) -> list[str]:
    """What would make headings ambiguous: then a response could not be read back."""
    faults = []
    if not re.fullmatch(r"[^\s{}][^\n{}]*\{title\}[^\n{}]*|\{title\}[^\n{}]*\S[^\n{}]*", contract.heading):
        faults.append(f"'heading' is {contract.heading!r}, wanted one line that holds {{title}} once and more than it")
    if not re.fullmatch(r"\n{1,2}", contract.separator):
        faults.append(f"'separator' is {contract.separator!r}, wanted one or two line breaks")
    if not contract.sections:
        faults.append("no [[section]]")
    for what in ("name", "title"):
        values = [getattr(section, what) for section in contract.sections]
        faults += [f"two sections have the {what} '{v}'" for v in sorted({v for v in values if values.count(v) > 1})]
        faults += [f"'{v}' is no {what}: wanted one line of text" for v in values if not v or " ".join(v.split()) != v]
    if faults:
        return faults
    heads = [contract.head(section) for section in contract.sections]
    marks = {m for s in contract.sections if s.kind.block for m in _line_marks(s.kind)}
    for head in heads:
        faults += [f"heading '{other}' begins with heading '{head}'" for other in heads if other != head and other.startswith(head)]
        faults += [f"heading '{head}' looks like the list mark '{m}'" for m in marks if m.startswith(head) or head.startswith(m)]
    return faults


def _line_marks(kind: Any) -> list[str]:
    return [f"{label}: " for label in kind.labels] if hasattr(kind, "labels") else [kind.MARK]
