"""Facts: sourced rows about one concept each, one JSON object a line, read and checked with all faults at once."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.errors import UserError, faults_error, unknown_key

SHOWN_FAULTS = 10


@dataclass(frozen=True)
class Fact:
    """A fact about one concept.  `texts` holds what a task's templates may name: definition, mechanism, clinical, ..."""

    id: str
    category: str
    concept: str
    aliases: tuple[str, ...] = ()
    expansion: str = ""  # of an abbreviation
    same_as: str = ""  # the concept that this one is another name of, where no name is shared to the letter
    other_senses: tuple[str, ...] = ()  # of an ambiguous abbreviation
    keywords: tuple[str, ...] = ()
    sources: tuple[dict[str, str], ...] = ()  # {name, id, url, licence}; empty: general knowledge
    reviewed: bool = False  # by a clinician
    texts: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """What is split as one: an abbreviation and the thing it stands for have the same group."""
        return (self.same_as or self.expansion or self.concept).lower()

    @property
    def names(self) -> set[str]:
        """Every name of the concept, lower case."""
        return {name.lower() for name in (self.concept, self.expansion, self.same_as, *self.aliases) if name}


_OWN = {f.name: f for f in dataclasses.fields(Fact) if f.name != "texts"}
_REQUIRED = ("id", "category", "concept")


def fact_files(path: Path) -> list[Path]:
    """The JSONL files of a file's or folder's path, in order of their names."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no facts there (wanted a .jsonl file, or a folder of them)")
    return files


def read_facts(path: Path, texts: set[str]) -> list[Fact]:
    """All facts below `path`; each must hold every field in `texts`.  Raises UserError with the faults of all files."""
    facts: list[Fact] = []
    faults: list[str] = []
    for file in fact_files(path):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            found = _row_faults(line, texts)
            faults += [f"{file.name}:{number}: {fault}" for fault in found]
            if not found:
                facts.append(_fact(json.loads(line)))
    ids = [fact.id for fact in facts]
    faults += [f"id '{i}' stands twice" for i in sorted({i for i in ids if ids.count(i) > 1})] if len(set(ids)) < len(ids) else []
    if not faults and not facts:
        faults = ["holds no fact"]
    if faults:
        more = [f"and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        raise faults_error(str(path), faults[:SHOWN_FAULTS] + more)
    return facts


def _row_faults(line: str, texts: set[str]) -> list[str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        return [f"not JSON: {error}"]
    if not isinstance(row, dict):
        return ["not a JSON object"]
    faults = [f"missing field '{key}'" for key in (*_REQUIRED, *sorted(texts)) if not row.get(key) and key not in row]
    faults += [f"field '{key}' is {row[key]!r}, wanted text" for key in _REQUIRED if key in row and not _is_text(row[key])]
    faults += [f"field '{key}' is empty" for key in sorted(texts) if key in row and row[key] in ("", [], None)]
    for key, value in row.items():
        if key in ("aliases", "keywords", "other_senses") and not (isinstance(value, list) and all(map(_is_text, value))):
            faults.append(f"field '{key}' is {value!r}, wanted a list of texts")
        if key not in _OWN and key not in texts and key not in _KNOWN_TEXTS:
            faults.append(unknown_key(key, [*_OWN, *texts, *_KNOWN_TEXTS]).replace("key", "field", 1))
    return faults


_KNOWN_TEXTS = ("definition", "mechanism", "clinical")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _fact(row: dict[str, Any]) -> Fact:
    own = {key: tuple(v) if isinstance(v, list) else v for key, v in row.items() if key in _OWN}
    return Fact(**own, texts={key: value for key, value in row.items() if key not in _OWN})
