"""A task's TOML -> TaskData: where its facts are, how requests and sections are made from a fact."""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.contract import Contract, load_contract, task_path
from contract.kinds import Fixed
from data_gen.facts import OWN
from plumbing.errors import UserError, faults_error
from plumbing.toml_file import fill, read_toml

# What a template may name beside the fact's texts; every fact has the first three.
_NAMED = {"concept", "a_concept", "category", "expansion", "other_senses", "keywords"}


@dataclass(frozen=True)
class TaskData:
    """The [data] table of a task.  A template names a fact's fields in braces.

    If a fact lacks an optional field such as {expansion}, the templates that name it are not used for that fact.
    """

    facts: str  # path of a .jsonl file or a folder of them, relative to the task file
    requests: list[str] | dict[str, list[str]]  # templates; a table groups them by style, and the styles take turns
    sections: dict[str, list[str]]  # section name -> templates (frames); fixed sections need none
    category_names: dict[str, str] = field(default_factory=dict)  # what {category} becomes, if not the category itself
    system_share: float = 0.5  # share of the rows that carry the system prompt
    licence: str = "unknown"  # of the texts, as the Hugging Face Hub spells it; for the dataset's card
    language: str = ""  # of the texts, a code such as en; for the card
    tags: list[str] = field(default_factory=list)  # for the card

    def styles(self) -> dict[str, list[str]]:
        """Style -> templates of requests."""
        return self.requests if isinstance(self.requests, dict) else {"request": self.requests}

    def templates(self) -> list[str]:
        """Every template: of the requests, then of the sections."""
        return [one for lists in (self.styles(), self.sections) for templates in lists.values() for one in templates]

    def texts(self) -> set[str]:
        """The fact fields that the templates name, which every fact must hold."""
        named = {name.removesuffix("_mid") for template in self.templates() for name in holes(template)}
        return {name[:1].lower() + name[1:] for name in named} - _NAMED


def load_task_data(task: str) -> tuple[Contract, TaskData, Path]:
    """A task's contract, its [data] table and its facts' path.  Raises UserError with all faults."""
    contract, path = load_contract(task), task_path(task)
    table = read_toml(path).get("data")
    if table is None:
        raise UserError(f"{path}: no [data] table: it must say how examples are composed")
    data = fill(TaskData, table, f"{path}: [data]")
    if faults := _data_faults(contract, data):
        raise faults_error(f"{path}: [data]", faults)
    return contract, data, (path.parent / data.facts).resolve()


@functools.cache
def holes(template: str) -> tuple[str, ...]:
    """The names in a template's braces.

    >>> holes("What is {concept} ({expansion})?")
    ('concept', 'expansion')
    """
    return tuple(name for _, name, _, _ in string.Formatter().parse(template) if name is not None)


def fills(template: str, fields: Mapping[str, Any]) -> bool:
    """Whether every hole of the template has a field."""
    return all(name in fields for name in holes(template))


def _data_faults(contract: Contract, data: TaskData) -> list[str]:
    wanted = [s.name for s in contract.sections if not isinstance(s.kind, Fixed)]
    faults = [f"no templates for section '{name}'" for name in wanted if not data.sections.get(name)]
    faults += [f"templates for unknown section '{name}'" for name in data.sections if name not in wanted]
    faults += [] if data.styles() else ["'requests' is empty"]
    faults += ["'requests' is empty" if name == "request" else f"style '{name}' has no requests"
               for name, templates in data.styles().items() if not templates]  # fmt: skip
    for name, templates in data.styles().items():
        if not name.isidentifier():
            faults.append(
                f"style '{name}': expected a name of letters, digits and _, because it is part of the rows' ids"
            )
        faults += [f"request {one!r} appears twice" for one in sorted({t for t in templates if templates.count(t) > 1})]
    faults += [f"category_names: '{name}' is blank" for name, text in data.category_names.items() if not text.strip()]
    every = [one for templates in data.styles().values() for one in dict.fromkeys(templates)]
    faults += [f"request {one!r} appears in two styles" for one in sorted({t for t in every if every.count(t) > 1})]
    if not 0 <= data.system_share <= 1:
        faults.append(f"'system_share' is {data.system_share}, expected 0 to 1")
    broken = [template for template in data.templates() if not _is_template(template)]
    faults += [f"template {template!r}: expected a fact's fields in braces, such as {{concept}}" for template in broken]
    closed = sorted(data.texts() & OWN) if not broken else []
    return faults + [
        f"no template can name '{name}': expected a fact's {', '.join(sorted(_NAMED))} or texts" for name in closed
    ]


def _is_template(template: str) -> bool:
    """Whether every hole is a plain {name}: no index, attribute, conversion or format."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return False
    return bool(template.strip()) and all(
        name is None or (name.isidentifier() and not spec and not conversion) for _, name, spec, conversion in parts
    )
