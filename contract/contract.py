"""A task's TOML -> Contract: the form of an answer that trainer, server and judge agree on.

contract = load_contract("terminology")
text = contract.write(record)            # what the model is trained to answer
contract.read(text).record == record     # what the judge reads back, with violations if there are any
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.diagnosis import diagnose
from contract.form import Form, Section
from contract.headings import Patterns
from contract.kinds import KINDS
from contract.line import LINE_RULES, literal, plain_line
from contract.violation import Reading as Reading  # exported again: a caller needs only this module
from contract.violation import Record as Record
from contract.violation import Violation as Violation
from plumbing.errors import faults_error, unknown_key
from plumbing.toml_file import read_toml, shipped_path, table_faults

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class Contract(Form):
    """A form, the task's name, and what the model reads about its purpose."""

    name: str
    about: str
    example: str = field(default="", compare=False)  # a request that hints and cards show; not part of the form

    @functools.cached_property
    def patterns(self) -> Patterns:
        """The patterns that find this form's headings, compiled once."""
        return Patterns(self)

    def system_prompt(self) -> str:
        """The system text.  It describes the whole form, so that an untuned model can follow it too."""
        lines = [
            f"{self.about} Answer with exactly these {len(self.sections)} sections, in this order and with these "
            "headings, and nothing before or after them."
        ]
        for section in self.sections:
            lines.append(self.head(section) + self.gap(section) + section.kind.describe())
        return "\n".join(lines)

    def write(self, record: Record) -> str:
        """The response text of a record.

        Raises ValueError with every section whose value is missing, unknown, of the wrong form or outside its bounds.
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

        One leading space is not a fault: Mistral's tokenizer puts it before every answer.
        """
        return diagnose(self.patterns, text)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema (2020-12) of a record: one required property for each section, in order."""
        return {
            "type": "object",
            "properties": {section.name: section.kind.json_schema() for section in self.sections},
            "required": [section.name for section in self.sections],
            "additionalProperties": False,
        }

    def grammar(self) -> str:
        """GBNF grammar for llama.cpp.  What it accepts has no structural violation and no leading space."""
        separator = literal(self.separator)
        rules = [f"root ::= {f' {separator} '.join(f's{i}' for i in range(len(self.sections)))}"]
        for number, section in enumerate(self.sections):
            start = literal(self.head(section) + self.gap(section))
            rules.append(f"s{number} ::= {start} {section.kind.gbnf()}")
        return "\n".join(rules) + "\n" + LINE_RULES


def _body(section: Section, value: Any) -> str:
    """The body as text.  Raises ValueError when it does not read back as a valid value."""
    body = section.kind.write(value)
    faults = section.kind.read(body)[1]
    if faults:
        expected = section.kind.describe()
        raise ValueError(
            ", ".join(f"{cls}: expected {expected}, found {body[start:end]!r}" for cls, start, end in faults)
        )
    return body


def task_path(task: str) -> Path:
    """The TOML of a shipped task's name, or of a path that ends in .toml.  Raises UserError."""
    return shipped_path(TASKS, task, "task")


def load_contract(task: str | Path) -> Contract:
    """The contract of a shipped task's name or a task file.  Raises UserError with all faults of the file."""
    path = task_path(str(task))
    table = read_toml(path)
    faults = _table_faults(table)
    if faults:
        raise faults_error(str(path), faults)
    contract = Contract(
        heading=table["heading"],
        separator=table["separator"],
        sections=tuple(_section(row) for row in table["section"]),
        name=table["name"],
        about=table["about"],
        example=table.get("example", ""),
    )
    faults = _head_faults(contract)
    if faults:
        raise faults_error(str(path), faults)
    return contract


def _section(row: dict[str, Any]) -> Section:
    kind: Any = KINDS[row["kind"]]
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items() if key not in _SECTION_KEYS}
    return Section(row["name"], row["title"], kind(**settings))


_SECTION_KEYS = ("name", "title", "kind")
_TASK_KEYS = {
    "name": str, "about": str, "heading": str, "separator": str, "section": list, "example": str, "data": dict,
}  # fmt: skip
_OPTIONAL = ("example", "data")


def _table_faults(table: dict[str, Any]) -> list[str]:
    faults = [unknown_key(key, _TASK_KEYS) for key in table if key not in _TASK_KEYS]
    for key, kind in _TASK_KEYS.items():
        if key not in table:
            faults += [] if key in _OPTIONAL else [f"missing key '{key}'"]
        elif not isinstance(table[key], kind):
            faults.append(f"'{key}' is {table[key]!r}, expected {_SPELLED.get(key, 'text')}")
    rows = table.get("section")
    if isinstance(rows, list):
        faults += [] if rows else ["no [[section]]"]
        for number, row in enumerate(rows, 1):
            faults += _section_faults(number, row)
        faults += _double_faults(rows)
    if isinstance(table.get("example"), str):
        faults += _line_faults("example", table["example"])
    return faults + _form_faults(table)


_SPELLED = {"section": "[[section]] tables", "data": "a [data] table"}


def _line_faults(key: str, text: Any) -> list[str]:
    try:
        plain_line(text)
    except ValueError as error:
        return [f"'{key}': {error}"]
    return []


def _section_faults(number: int, row: Any) -> list[str]:
    if not isinstance(row, dict):
        return [f"section {number}: expected a table"]
    where = f"section {number} '{row.get('name', '?')}'"
    faults = [f"missing key '{key}'" for key in _SECTION_KEYS if key not in row]
    for key in ("name", "title"):
        faults += _line_faults(key, row.get(key, key))
    kind = row.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        faults += [f"unknown kind {kind!r} (kinds: {', '.join(KINDS)})"] if "kind" in row else []
    else:
        faults += _kind_faults(row)
    return [f"{where}: {fault}" for fault in faults]


def _kind_faults(row: dict[str, Any]) -> list[str]:
    settings = {key: value for key, value in row.items() if key not in _SECTION_KEYS}
    faults = table_faults(KINDS[row["kind"]], settings)
    if not faults:
        try:
            _section({"name": "", "title": ""} | row)
        except ValueError as error:
            faults = [str(error)]
    return faults


def _double_faults(rows: list[Any]) -> list[str]:
    faults = []
    for what in ("name", "title"):
        counts = Counter(str(row.get(what)) for row in rows if isinstance(row, dict) and what in row)
        faults += [f"{count} sections have the {what} '{value}'" for value, count in counts.items() if count > 1]
    return faults


def _form_faults(table: dict[str, Any]) -> list[str]:
    faults = []
    heading, separator = table.get("heading", "{title}:"), table.get("separator", "\n")
    if isinstance(heading, str) and not _is_heading(heading):
        faults.append(f"'heading' is {heading!r}, expected one line that holds {{title}} once and other text")
    if isinstance(separator, str) and separator not in ("\n", "\n\n"):
        faults.append(f"'separator' is {separator!r}, expected one or two line breaks")
    return faults


def _is_heading(heading: str) -> bool:
    before, found, after = heading.rstrip(" ").partition("{title}")
    if not found or not before + after or set("{}") & set(before + after):
        return False
    return not _line_faults("heading", before + "title" + after)


def _head_faults(contract: Contract) -> list[str]:
    """Headings that are ambiguous: a response with them could not be read back."""
    heads = [contract.head(section) for section in contract.sections]
    marks = {mark for section in contract.sections for mark in section.kind.marks}
    faults = []
    for head in heads:
        longer = [other for other in heads if other != head and other.startswith(head)]
        faults += [f"heading '{other}' begins with heading '{head}'" for other in longer]
        alike = sorted(mark for mark in marks if mark.startswith(head) or head.startswith(mark))
        faults += [f"heading '{head}' looks like the list mark '{mark}'" for mark in alike]
    return faults
