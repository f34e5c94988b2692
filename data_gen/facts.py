"""JSONL files -> facts: rows about one concept each.  All faults are reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from plumbing.errors import UserError, faults_error, unknown_key
from plumbing.jsonl import first_faults, read_lines
from plumbing.toml_file import table_faults
from plumbing.wording import texts_of


@dataclass(frozen=True)
class Fact:
    """A fact about one concept.  `texts` holds what a task's templates may name: definition, mechanism, ..."""

    id: str
    category: str
    concept: str
    aliases: tuple[str, ...] = ()
    expansion: str = ""  # of an abbreviation
    same_as: str = ""  # the concept that this one is another name of, if the two facts share no name
    other_senses: tuple[str, ...] = ()  # of an ambiguous abbreviation
    keywords: tuple[str, ...] = ()
    sources: tuple[dict[str, str], ...] = ()  # {name, id, url, licence}; empty: general knowledge
    reviewed: bool = False  # by a clinician
    texts: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Facts of one group fall into one split: an abbreviation and the thing it stands for have the same group."""
        return (self.same_as or self.expansion or self.concept).lower()

    @property
    def names(self) -> set[str]:
        """Every name of the concept, lower case."""
        return {name.lower() for name in (self.concept, self.expansion, self.same_as, *self.aliases) if name}


OWN = {f.name for f in dataclasses.fields(Fact) if f.name != "texts"}
TEXTS = {"definition", "mechanism", "clinical"}  # known whether a task names them or not
T = TypeVar("T")


def fact_files(path: Path) -> list[Path]:
    """The JSONL files of a file's or folder's path, in order of their names."""
    files = sorted(p for p in path.glob("[!.]*.jsonl") if p.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no facts there (expected a .jsonl file, or a folder of them)")
    return files


def read_facts(path: Path, texts: set[str]) -> list[Fact]:
    """All facts below `path`; each must hold every field in `texts`.  Raises UserError with the faults of all files."""
    located: list[tuple[str, Fact]] = []  # file:line of a fact, and the fact
    faults: list[str] = []
    for file in fact_files(path):
        for number, row, unreadable in read_lines(file):
            where = f"{file.name}:{number}"
            found = [unreadable] if unreadable else row_faults(row, texts)
            faults += [f"{where}: {fault}" for fault in found]
            if not found:
                located.append((where, to_fact(row)))
    for where, _, there, _, name in repeated(located, lambda fact: [(fact.id, fact.id)]):
        faults.append(f"{where}: id '{name}' is also at {there}")
    # Facts that share a name but no group could fall into two splits, and a test concept be trained on.
    for where, fact, there, other, name in repeated(located, lambda fact: [(n, n) for n in sorted(fact.names)]):
        if other.group != fact.group:
            cure = f"say which is meant: same_as = '{other.group}'"
            faults.append(f"{where}: '{name}' is also a name of {there}; {cure}")
    if not faults and not located:
        faults = ["does not hold a fact"]
    if faults:
        raise faults_error(str(path), first_faults(faults))
    return [fact for _, fact in located]


def row_faults(row: Any, texts: set[str]) -> list[str]:
    """Why a parsed line is not a fact that holds every field in `texts`."""
    if not isinstance(row, dict):
        return ["not a JSON object"]
    known = OWN | TEXTS | texts
    own = {key: value for key, value in row.items() if key in OWN}
    faults = [unknown_key(key, known) for key in row if key not in known] + table_faults(Fact, own)
    faults += [f"missing key '{key}'" for key in sorted(texts - row.keys())]
    for key in sorted(row.keys() & (TEXTS | texts)):
        if not isinstance(row[key], str | list) or not row[key] or (isinstance(row[key], str) and not row[key].strip()):
            faults.append(f"'{key}' is {row[key]!r}, expected text or a list")
    faults += [f"'{key}' is empty" for key in ("id", "category", "concept") if not str(row.get(key, key)).strip()]
    for key in ("expansion", "same_as", "aliases", "other_senses", "keywords"):
        faults += [f"'{key}' holds a blank text" for text in texts_of(row.get(key)) if text.isspace()]
    return [fault.replace(" key '", " field '", 1) for fault in faults]


def to_fact(row: dict[str, Any]) -> Fact:
    """The fact of a row without faults."""
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items() if key in OWN}
    return Fact(**own, texts={key: value for key, value in row.items() if key not in OWN})


def repeated(
    located: Iterable[tuple[T, Fact]], keys: Callable[[Fact], Iterable[tuple[str, str]]]
) -> Iterator[tuple[T, Fact, T, Fact, str]]:
    """Each fact with a key that an earlier fact has: where it is, the fact, both of the earlier one, the key's spelling.

    `keys` gives a fact's keys, each with its spelling in that fact.
    """
    first: dict[str, tuple[T, Fact]] = {}
    for where, fact in located:
        for key, spelling in keys(fact):
            if key in first:
                yield where, fact, *first[key], spelling
            first.setdefault(key, (where, fact))
