"""Fact files -> findings, one for each fault (`python -m data_gen.lint` prints them).

Some rules hold for any fact.  The others hold for teaching facts: the shipped ones, and any with two of the texts
definition, mechanism and clinical.  So a user's own task may name other fields, with fewer rules for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_gen.facts import OWN, TEXTS, Fact, fact_files, repeated, row_faults, to_fact
from data_gen.lint_texts import Found, character_faults, sentences, teaching_faults, text_faults
from plumbing.errors import UserError
from plumbing.jsonl import read_lines
from plumbing.toml_file import read_toml, table_faults
from plumbing.wording import name_key, texts_of

SHIPPED = Path(__file__).parent / "facts/terminology"
_RULES = read_toml(Path(__file__).with_name("lint_rules.toml"))
ANY_FACT: dict[str, str] = _RULES["any_fact"]  # rule -> what it demands
TEACHING_FACT: dict[str, str] = _RULES["teaching_fact"]
REQUIRED = ("keywords", "sources", "reviewed")  # of a teaching fact, besides its texts and what every fact must have
LICENCES = ("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "MIT", "US government work")
_SOURCE = {"name", "id", "url", "licence"}
_CLOSED = re.compile(r"umls|snomed|uts\.nlm\.nih|\bC\d{7}\b", re.I)  # C0020538 is an id of the UMLS


@dataclass(frozen=True)
class Finding:
    where: str  # file:line
    id: str
    rule: str  # a key of ANY_FACT or TEACHING_FACT
    found: str  # "what was found; cure"

    def __str__(self) -> str:
        line = f"{self.where} {self.id}: {self.rule}: {self.found}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


@dataclass(frozen=True)
class Line:
    """A line of a fact file; `row` is None if it is not a JSON object, `fact` if fields of a Fact are faulty."""

    where: str
    row: dict[str, Any] | None = None
    unreadable: str = ""
    fact: Fact | None = None
    named_for: str = ""  # the category that a shipped file is named after
    teaching: bool = False

    @property
    def id(self) -> str:
        found = (self.row or {}).get("id")
        return found if isinstance(found, str) and found.strip() else "(no id)"


def read(paths: Iterable[Path], shipped: Path = SHIPPED) -> list[Line]:
    """The lines of all files, each file once.  Raises UserError if there is no file, no text or no line."""
    files = {file.resolve(): file for path in paths for file in fact_files(path)}
    lines = [
        _line(f"{_shown(file)}:{number}", row, unreadable, real.stem if real.parent == shipped.resolve() else "")
        for real, file in files.items()
        for number, row, unreadable in read_lines(file)
    ]
    if not lines:
        raise UserError(f"{', '.join(map(str, files.values()))}: does not hold a fact; write one JSON object a line")
    return lines


def lint(lines: Sequence[Line]) -> list[Finding]:
    """Every finding, in the order of the lines."""
    located = [(line, found) for line in lines for found in _line_faults(line)]
    located += _repeats(lines)
    order = {line.where: number for number, line in enumerate(lines)}
    located.sort(key=lambda pair: order[pair[0].where])
    return [Finding(line.where, line.id, *found) for line, found in located]


def summary(lines: Sequence[Line], findings: Sequence[Finding]) -> str:
    """
    >>> summary([Line("f:1"), Line("f:2")], [Finding("f:1", "a/b", "seam", "..."), Finding("f:1", "a/b", "id", "...")])
    '2 facts, 2 findings in 1 fact'
    """
    faulty = len({finding.where for finding in findings})
    where = f" in {_count(faulty, 'fact')}" if faulty else ""
    return f"{_count(len(lines), 'fact')}, {_count(len(findings), 'finding')}{where}"


def _line(where: str, row: Any, unreadable: str, named_for: str) -> Line:
    if unreadable or not isinstance(row, dict):
        return Line(where, unreadable=unreadable or "not a JSON object", named_for=named_for)
    own = {name: value for name, value in row.items() if name in OWN}
    fact = None if table_faults(Fact, own) else to_fact(row)
    return Line(where, row, "", fact, named_for, teaching=bool(named_for) or len(TEXTS & row.keys()) >= 2)


def _line_faults(line: Line) -> Iterator[Found]:
    row = line.row
    if row is None:
        yield "unreadable", f"{line.unreadable}; write one JSON object a line"
        return
    texts = set() if line.named_for else row.keys() - OWN  # a user's own task may name any further field
    for fault in row_faults(row, texts | TEXTS if line.teaching else texts):
        yield "field", f"{fault}; fix the field"
    if row.get("reviewed") is True:
        yield "reviewed", "'reviewed' is true, and no field names the reviewer; write false"
    for name, value in row.items():
        check = character_faults if name == "sources" else text_faults  # an address is not prose
        yield from ((rule, f"'{name}': {found}") for text in texts_of(value) for rule, found in check(text))
    if line.teaching:
        yield from _form_faults(line, row)
        yield from teaching_faults(row)


def _form_faults(line: Line, row: dict[str, Any]) -> Iterator[Found]:
    """Faults of a teaching fact's fields, beyond those that `read_facts` finds."""
    category = row.get("category")
    required = [*REQUIRED, *(["expansion"] if category == "abbreviations" else [])]
    yield from (("field", f"missing field '{name}'; add it") for name in required if name not in row)
    lists = [name for name in sorted(TEXTS & row.keys()) if isinstance(row[name], list)]
    yield from (("field", f"'{name}' is a list; write one text") for name in lists)
    if line.fact and not re.fullmatch(rf"{re.escape(line.fact.category)}/[a-z0-9]+(-[a-z0-9]+)*", line.id):
        yield "id", f"'{line.id}'; write '{category}/slug', the slug of lower-case letters, digits and hyphens"
    if isinstance(category, str) and line.named_for not in ("", category):
        yield "category", f"'{category}' in the file of '{line.named_for}'; move the fact or fix its category"
    for source in line.fact.sources if line.fact else ():
        yield from _source_faults(source)


def _source_faults(source: dict[str, str]) -> Iterator[Found]:
    name, licence = source.get("name"), source.get("licence", "")
    if set(source) != _SOURCE or not all(value.strip() for value in source.values()):
        yield "source", f"source '{name}' has {', '.join(source) or 'nothing'}; give it name, id, url and licence"
    if re.search(r"\b(?:NC|ND)\b|non-?commercial|no-?deriv", licence, re.I):
        yield "licence", f"'{licence}' of source '{name}' forbids commercial use or changes; use another source"
    elif licence not in LICENCES:
        yield "licence", f"'{licence}' of source '{name}' is not allowed; use one under {', '.join(LICENCES)}"
    if closed := _CLOSED.search(" ".join(source.values())):
        yield "closed-source", f"'{closed[0]}' in source '{name}': its terms forbid passing it on; use another source"


def _repeats(lines: Iterable[Line]) -> Iterator[tuple[Line, Found]]:
    """Ids, names and sentences that two facts share, and names that one fact has twice.

    Of names these are the ones that `read_facts` refuses, and those that differ only in number or spelling.
    """
    facts = [(line, line.fact) for line in lines if line.fact]
    for line, _, first, _, shown in repeated(facts, lambda fact: [(fact.id, fact.id)]):
        yield line, ("same-id", f"'{shown}' is also at {first.where}; give each fact its own")
    for line, fact in facts:
        given = [name.lower() for name in (fact.concept, fact.expansion, *fact.aliases) if name]
        for name in sorted({name for name in given if given.count(name) > 1}):
            yield line, ("same-name", f"'{name}' appears twice in the fact; keep one")
    for line, fact, first, other, shown in repeated(facts, _name_keys):
        if fact.group != other.group:
            cure = f"say which is meant: same_as = '{other.group}'"
            yield line, ("same-name", f"'{shown}' is also a name of {first.where}; {cure}")
    for line, _, first, _, shown in repeated(((line, fact) for line, fact in facts if line.teaching), _sentence_keys):
        yield line, ("same-text", f"'{shown}' is also at {first.where}; reword one")


def _name_keys(fact: Fact) -> list[tuple[str, str]]:
    return [(name_key(name) or name, name) for name in sorted(fact.names)]


def _sentence_keys(fact: Fact) -> list[tuple[str, str]]:
    texts = [fact.texts.get(name) for name in sorted(TEXTS)]
    found = [sentence for text in texts if isinstance(text, str) for sentence in sentences(text)]
    return [(" ".join(sentence.lower().split()), sentence) for sentence in found if len(sentence.split()) > 3]


def _shown(file: Path) -> Path:
    return file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
