"""Facts + task -> examples: requests and records from the task's templates, every row proved by reading it back."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.contract import Contract, load_contract, task_path
from contract.errors import UserError, faults_error
from contract.example import Example
from contract.kinds import Fixed
from contract.toml_file import fill, read_toml
from data_gen.facts import OWN, Fact
from data_gen.split import draw

ROWS_A_CONCEPT = 3  # the default: three different requests for each concept
_ALWAYS = {"concept", "category"}  # what every fact has; a template may name `expansion` and the texts too


@dataclass(frozen=True)
class TaskData:
    """The [data] table of a task: where its facts are, how requests are put, how each section is made from a fact."""

    facts: str  # path, relative to the task file
    requests: list[str]
    sections: dict[str, list[str]]  # section name -> templates; fixed sections need none
    system_share: float = 0.5  # of the rows that carry the system prompt; the rest must do without

    def facts_path(self, task: Path) -> Path:
        return (task.parent / self.facts).resolve()

    def templates(self) -> list[str]:
        """Every template: of the requests, then of the sections."""
        return [*self.requests, *(template for templates in self.sections.values() for template in templates)]

    def texts(self) -> set[str]:
        """The fact fields that the templates name: every fact must hold them."""
        named = {name for template in self.templates() for name in _holes(template)}
        return {name[:1].lower() + name[1:] for name in named} - _ALWAYS


def load_task_data(task: str) -> tuple[Contract, TaskData, Path]:
    """A task's contract, its [data] table and its facts' path.  Raises UserError with all faults."""
    contract, path = load_contract(task), task_path(task)
    table = read_toml(path).get("data")
    if table is None:
        raise UserError(f"{path}: no [data] table: nothing says how examples are composed")
    data = fill(TaskData, table, f"{path}: [data]")
    faults = _data_faults(contract, data)
    if faults:
        raise faults_error(f"{path}: [data]", faults)
    return contract, data, data.facts_path(path)


def compose(contract: Contract, data: TaskData, fact: Fact, rows: int, seed: int) -> list[Example]:
    """`rows` examples about one fact, each with another request.

    Raises UserError when the contract refuses a value, or when there are fewer requests than rows.
    """
    if rows > len(data.requests):
        raise UserError(f"{rows} rows a concept but {len(data.requests)} requests: lower --count or add requests")
    order = sorted(range(len(data.requests)), key=lambda i: draw(seed, "request", fact.id, i))
    return [_example(contract, data, fact, n, order[n], seed) for n in range(rows)]


def quotas(names: Sequence[str], count: int) -> dict[str, int]:
    """`count` rows shared equally among the names, the first ones taking what does not divide.

    >>> quotas(["b", "a"], 5)
    {'a': 3, 'b': 2}
    """
    whole, rest = divmod(count, len(names))
    return {name: whole + (n < rest) for n, name in enumerate(sorted(names))}


def rows_each(facts: Sequence[Fact], count: int | None) -> dict[str, int]:
    """How many rows each fact gets so that `count` rows meet the category quotas exactly (None: the default each)."""
    if count is None:
        return {fact.id: ROWS_A_CONCEPT for fact in facts}
    by_category: dict[str, list[str]] = {}
    for fact in facts:
        by_category.setdefault(fact.category, []).append(fact.id)
    share = quotas(list(by_category), count)
    return {fact: rows for name, ids in by_category.items() for fact, rows in quotas(ids, share[name]).items()}


def _example(contract: Contract, data: TaskData, fact: Fact, number: int, request: int, seed: int) -> Example:
    fields = _fields(fact)
    record = {}
    for section in contract.sections:
        if isinstance(section.kind, Fixed):
            record[section.name] = section.kind.text
        else:
            templates = data.sections[section.name]
            chosen = templates[draw(seed, "frame", fact.id, number, section.name) % len(templates)]
            record[section.name] = _render(chosen, fields)
    try:
        response = contract.write(record)
    except ValueError as error:
        raise UserError(f"fact '{fact.id}': {error}") from None
    carries = draw(seed, "system", fact.id, number) / 2**64 < data.system_share
    system = contract.system_prompt() if carries else ""
    text = _render(data.requests[request], fields)
    return Example(f"{fact.id}/{number}", fact.concept, fact.category, text, system, record, response, fact.keywords)


def _fields(fact: Fact) -> dict[str, Any]:
    """A template's fields; {Name} is the field `name` with its first letter large."""
    own = {"concept": fact.concept, "category": fact.category.replace("_", " "), "expansion": fact.expansion}
    fields = {**fact.texts, **own}
    large = {k[:1].upper() + k[1:]: v[:1].upper() + v[1:] for k, v in fields.items() if isinstance(v, str)}
    return fields | large


def _render(template: str, fields: dict[str, Any]) -> Any:
    names = _holes(template)
    if names and template == f"{{{names[0]}}}" and names[0] in fields:
        return fields[names[0]]  # a list stays a list
    if not all(isinstance(fields.get(name), str) for name in names):
        raise UserError(
            f"template {template!r}: names a field that holds a list, which must stand alone, in small letters"
        )
    return template.format_map(fields)


def _holes(template: str) -> list[str]:
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _data_faults(contract: Contract, data: TaskData) -> list[str]:
    wanted = [s.name for s in contract.sections if not isinstance(s.kind, Fixed)]
    faults = [f"no templates for section '{name}'" for name in wanted if not data.sections.get(name)]
    faults += [f"templates for unknown section '{name}'" for name in data.sections if name not in wanted]
    if not data.requests:
        faults.append("'requests' is empty")
    if not 0 <= data.system_share <= 1:
        faults.append(f"'system_share' is {data.system_share}, wanted 0 to 1")
    broken = [template for template in data.templates() if not _is_template(template)]
    faults += [f"template {template!r}: wanted a fact's fields in braces, such as {{concept}}" for template in broken]
    closed = sorted(data.texts() & OWN - {"expansion"}) if not broken else []
    return faults + [f"no template can name '{name}': wanted a fact's concept, expansion or texts" for name in closed]


def _is_template(template: str) -> bool:
    """Whether every hole is a plain {name}: no index, attribute, conversion or format."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return False
    return bool(template.strip()) and all(
        name is None or (name.isidentifier() and not spec and not conversion) for _, name, spec, conversion in parts
    )
