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
    violations = _outside(parts, text) + _order(contract, parts)
    record: Record = {}
    for number, part in enumerate(parts):
        value, found = _read_part(contract, part, last=number == len(parts) - 1)
        violations += found
        record.setdefault(part.section.name, value)
    return Reading(record, tuple(violations))


def _split(contract: Contract, text: str) -> list[_Part]:
    by_head = {contract.head(section): section for section in contract.sections}
    pattern = re.compile("^(?:" + "|".join(map(re.escape, by_head)) + ")", re.MULTILINE)
    matches = [m for m in pattern.finditer(text) if m.start() == 0 or text[m.start() - 1] == "\n"]
    ends = [m.start() for m in matches[1:]] + [len(text)]
    return [_Part(by_head[m.group()], m.start(), text[m.end() : end]) for m, end in zip(matches, ends, strict=True)]


def _outside(parts: list[_Part], text: str) -> list[Violation]:
    start = parts[0].start if parts else len(text)
    return [Violation("", "PREAMBLE", text[:start])] if start else []


def _order(contract: Contract, parts: list[_Part]) -> list[Violation]:
    names = [part.section.name for part in parts]
    violations = [
        Violation(s.name, s.kind.missing, contract.head(s)) for s in contract.sections if s.name not in names
    ]
    firsts = list(dict.fromkeys(names))
    violations += [Violation(n, "DUPLICATE_SECTION", n) for n in firsts if names.count(n) > 1]
    wanted = [s.name for s in contract.sections if s.name in names]
    if firsts != wanted:
        violations.append(Violation("", "WRONG_ORDER", " > ".join(firsts)))
    return violations


def _read_part(contract: Contract, part: _Part, last: bool) -> tuple[object, list[Violation]]:
    name, kind = part.section.name, part.section.kind
    body, violations = part.text, []
    if not body.strip():
        return body, [Violation(name, "EMPTY_SECTION", body)]
    if not last:
        if body.endswith(contract.separator) and not body.removesuffix(contract.separator).endswith("\n"):
            body = body.removesuffix(contract.separator)
        else:
            violations.append(Violation(name, "HEADING_VARIANT", body[-20:]))
            body = body.rstrip("\n")
    gap = contract.gap(part.section)
    if body.startswith(gap):
        body = body.removeprefix(gap)
    else:
        violations.append(Violation(name, "HEADING_VARIANT", contract.head(part.section) + body[:20]))
        body = body.lstrip()
    body, surplus = _surplus(contract, part.section, body, last)
    value, faults = kind.read(body)
    return value, violations + surplus + [Violation(name, cls, found) for cls, found in faults]


def _surplus(contract: Contract, section: Section, body: str, last: bool) -> tuple[str, list[Violation]]:
    """Part an inline body from further lines: another heading's, or talk after the last section."""
    if section.kind.block:
        own, rest = _block_lines(body, section)
    else:
        own, _, rest = body.partition("\n")
        rest = "\n" + rest if "\n" in body else ""
    if not rest:
        return own, []
    before, after = map(re.escape, contract.heading.rstrip(" ").split("{title}"))
    if re.search(rf"^{before}\w[\w /-]{{0,40}}{after}", rest, re.MULTILINE):
        return own, [Violation(section.name, "EXTRA_SECTION", rest)]
    return own, [Violation(section.name, "POSTAMBLE" if last else "WRONG_VALUE", rest)]


def _block_lines(body: str, section: Section) -> tuple[str, str]:
    own, blank, rest = body.partition("\n\n")
    return own, blank + rest
