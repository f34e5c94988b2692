"""A form -> the patterns that find its headings, other spellings of them, and code fences.

A heading counts only at the start of a line.  Every repeat in the patterns is bounded or possessive (it never
backtracks), so that each runs in time linear in the text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contract.form import Form, Section


@dataclass(frozen=True)
class Heading:
    """Where a section begins: its heading as the contract writes it (exact), or another spelling of it: `## Note`."""

    section: Section
    start: int
    end: int
    exact: bool


class Patterns:
    """A form's patterns, compiled."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.own_extra = re.compile(_own_extra(form), re.MULTILINE)
        self.any_extra = re.compile(f"{_own_extra(form)}|{_MARKDOWN_HEADING}", re.MULTILINE)
        self._headings = re.compile(_headings(form), re.MULTILINE)  # ^ matches after \n alone

    def headings(self, text: str) -> Iterator[Heading]:
        """The headings in `text`, exact or not, in code fences too; a quoted line does not begin with a heading."""
        for match in self._headings.finditer(text):
            group = match.lastgroup or ""
            section = self.form.sections[int(group[1:])]
            yield Heading(section, *match.span(), exact=group[0] == "e")


@dataclass(frozen=True)
class Fence:
    """A code fence, from its opening line to behind its closing line, and the text between the two."""

    start: int
    inside: int
    inside_end: int
    end: int


_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)(?:\n|\Z)", re.MULTILINE)


def fences(text: str) -> Iterator[Fence]:
    """CommonMark's fences: closed by a line of at least as many of the same mark alone, or by the end of the text."""
    opened = None
    for line in _FENCE.finditer(text):
        mark, rest = line.groups()
        if opened is None:
            opened = None if mark[0] == "`" and "`" in rest else line  # ```x``` is code within a line
        elif mark[0] == opened[1][0] and len(mark) >= len(opened[1]) and not rest.strip():
            yield Fence(opened.start(), opened.end(), line.start(), line.end())
            opened = None
    if opened is not None:
        yield Fence(opened.start(), opened.end(), len(text), len(text))


def holding(code: Sequence[Fence], place: int) -> Fence | None:
    """The fence of `code` (in text order) that holds the place; None outside of all fences."""
    number = bisect_right(code, place, key=lambda fence: fence.start) - 1
    return code[number] if number >= 0 and place < code[number].end else None


# Marks before a title: # * - [ an emoji; but not those of a quotation, code, JSON or a table.
_SIGN = r"""(?:_|[^\w\s>`"'{|<~])"""
_NUMBER = r"(?:(?i:section|part|step) )?\(?(?:\d{1,2}|[ivxIVX]{1,4}|[a-zA-Z])[.):]"
_BEFORE = rf" {{0,3}}(?:{_SIGN}{{1,6}} {{0,2}})?(?:{_NUMBER} ?)?{_SIGN}{{0,4}}"
_CLOSE = r"[*_\])#]"
_AFTER = (
    rf"(?:{_CLOSE}{{0,4}} ?:[:*_\])#]{{0,4}}"  # **Note:**  Note:
    rf"|{_CLOSE}{{1,4}}(?!\w)(?: [-–—](?=[ \n]))?"  # **Note**  [Note] -
    r"| {1,2}[-–—](?=[ \n])"  # Note - ...
    r"| {0,3}\r?$)"  # on a line of its own
)
_MARKDOWN_HEADING = (
    r"^ {0,3}#{1,6} {1,3}\S"
    r"|^(?:\*\*|__)[^*_\n:]{1,40}(?::(?:\*\*|__)|(?:\*\*|__)(?: ?:|[ \r]{0,3}$))"  # **Sources:**  **Sources**
)


def _headings(form: Form) -> str:
    """Group e<n>: the head of section n as written; d<n>: another spelling of its title, but not on a line of a list;
    s<n>: its head as written, indented or numbered."""
    exact = "|".join(f"(?P<e{n}>{re.escape(form.head(s))})" for n, s in enumerate(form.sections))
    titles = "|".join(f"(?P<d{n}>{_loosened(s.title)})" for n, s in enumerate(form.sections))
    shifted = "|".join(f"(?P<s{n}>{re.escape(form.head(s))})" for n, s in enumerate(form.sections))
    dressed = rf"{_BEFORE}(?i:{titles}){_AFTER}| {{0,3}}(?:{_NUMBER} )?(?:{shifted})"
    return f"^(?:{exact}|{_no_mark(form)}(?:{dressed}))"


def _own_extra(form: Form) -> str:
    """A line that begins like this form's headings.  A bare `Title: ` must be short, capitalised and followed by text:
    "Sure, here is your note:" is not a heading."""
    before, after = form.heading.rstrip(" ").split("{title}")
    if before or after != ":":
        return rf"^{re.escape(before)}\w[\w &'()/-]{{0,40}}{re.escape(after)}"
    return rf"^{_no_mark(form)}[A-Z][\w-]{{0,20}}(?: [\w/&-]{{1,20}}){{0,3}}: \S"


def _no_mark(form: Form) -> str:
    marks = sorted({mark for section in form.sections for mark in section.kind.marks})
    return f"(?!{_either(marks)})" if marks else ""


def _either(texts: list[str] | tuple[str, ...]) -> str:
    return "|".join(map(re.escape, texts))


def _loosened(title: str) -> str:
    return "[ _-]{1,3}".join(map(re.escape, title.split(" ")))
