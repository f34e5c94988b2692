"""A response text + its contract -> Reading: where the headings stand, what each section says, every broken rule.

A heading counts only at the start of a line.  The classes are the judge's closed list of structural failures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from contract.contract import Contract, Reading, Record, Section, Violation


@dataclass(frozen=True)
class _Part:
    """One section's stretch of the text: from its heading to the next section's heading."""

    section: Section
    start: int
    text: str  # what follows the head, gap and trailing separator included


def read_strictly(contract: Contract, text: str) -> Reading:
    """Every structural failure of `text`; with none, `contract.write(record)` is `text` again."""
    if not text.strip():
        return Reading({}, (Violation("", "EMPTY_ANSWER", text),))
    parts = _split(contract, text)
    before = _before(contract, text[: parts[0].start] if parts else text)
    record: Record = {}
    inside: list[Violation] = []
    for part, following in zip(parts, [*parts[1:], None], strict=False):
        value, found = _read_part(contract, part, following.section.name if following else None)
        inside += found
        record.setdefault(part.section.name, value)
    dressed = {v.section for v in before + inside if v.cls == "HEADING_VARIANT"}
    return Reading(record, (*before, *_order(contract, parts, dressed), *inside))


def _split(contract: Contract, text: str) -> list[_Part]:
    by_head = {contract.head(section): section for section in contract.sections}
    heads = re.compile("^(?:" + "|".join(map(re.escape, by_head)) + ")", re.MULTILINE)  # ^ matches after \n alone
    matches = list(heads.finditer(text))
    ends = [m.start() for m in matches[1:]] + [len(text)] * bool(matches)
    return [_Part(by_head[m.group()], m.start(), text[m.end() : end]) for m, end in zip(matches, ends, strict=True)]


def _before(contract: Contract, text: str) -> list[Violation]:
    """What the stretch before the first heading breaks."""
    variants = list(_variants(contract, text))
    talk = text[: text.index(variants[0].found)] if variants else text
    return ([Violation("", "PREAMBLE", talk)] if talk else []) + variants


def _order(contract: Contract, parts: list[_Part], dressed: set[str]) -> list[Violation]:
    """Missing, doubled and misplaced sections; one whose heading stands there in another dress is not missing."""
    names = [part.section.name for part in parts]
    violations = [
        Violation(s.name, s.kind.missing, contract.head(s))
        for s in contract.sections
        if s.name not in names and s.name not in dressed
    ]
    firsts = list(dict.fromkeys(names))
    violations += [Violation(n, "DUPLICATE_SECTION", n) for n in firsts if names.count(n) > 1]
    if firsts != [s.name for s in contract.sections if s.name in names]:
        violations.append(Violation("", "WRONG_ORDER", " > ".join(firsts)))
    return violations


def _read_part(contract: Contract, part: _Part, following: str | None) -> tuple[object, list[Violation]]:
    """The value of one section's stretch and what it breaks; `following` names the next section, if there is one."""
    name, kind, head = part.section.name, part.section.kind, contract.head(part.section)
    body, violations = part.text, []
    if not body.strip():
        return body, [Violation(name, "EMPTY_SECTION", head + body)]
    if following:
        bare = body.rstrip("\n")
        if bare + contract.separator != body:
            violations.append(Violation(following, "HEADING_VARIANT", body[len(bare) :]))
        body = bare
    gap = contract.gap(part.section)
    if not body.startswith(gap) or body.removeprefix(gap)[:1].isspace():
        violations.append(Violation(name, "HEADING_VARIANT", head + body[:20]))
        body = gap + body.lstrip()
    body = body.removeprefix(gap)
    own = _own(part.section, body)
    if own != body:
        violations += _stray(contract, name, body[len(own) :], "WRONG_VALUE" if following else "POSTAMBLE")
    value, faults = kind.read(own)
    return value, violations + [Violation(name, cls, found) for cls, found in faults]


def _own(section: Section, body: str) -> str:
    """The beginning of `body` that can be the section's: its first line, or its list up to the last marked line."""
    if not section.kind.block:
        return body.partition("\n")[0]
    lines = body.partition("\n\n")[0].split("\n")
    last = max((i for i, line in enumerate(lines) if line.startswith(section.kind.marks)), default=0)
    return "\n".join(lines[: last + 1])


def _stray(contract: Contract, name: str, text: str, otherwise: str) -> list[Violation]:
    """What lines that belong to no section are: headings in another dress, a section nobody asked for, or mere talk."""
    violations = list(_variants(contract, text))
    known = {section.title.lower() for section in contract.sections}
    before, after = map(re.escape, contract.heading.rstrip(" ").split("{title}"))
    headings = re.finditer(rf"^{before}(\w[\w /-]{{0,40}}){after}", text, re.MULTILINE)
    if any(m.group(1).lower() not in known for m in headings):
        violations.append(Violation(name, "EXTRA_SECTION", text))
    return violations or [Violation(name, otherwise, text)]


def _variants(contract: Contract, text: str) -> list[Violation]:
    """For each section the first line that begins with its title in another dress: `## Note`, `1. note:`."""
    names = {section.title.lower(): section.name for section in contract.sections}
    titles = "|".join(re.escape(section.title) for section in contract.sections)
    dress = re.compile(rf"^[^\w\n]{{0,9}}(?:\d\d?[.)] )?[*_]{{0,2}}({titles})[ \t]*(?:[:*_#\])–—-]|$)", re.I | re.M)
    first: dict[str, Violation] = {}
    for match in dress.finditer(text):
        name = names.get(match.group(1).lower(), "")
        first.setdefault(name, Violation(name, "HEADING_VARIANT", match.group()))
    return list(first.values())
