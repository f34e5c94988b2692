"""A text with faults + its form's patterns -> Reading: the rules it breaks, and where."""

from __future__ import annotations

from bisect import bisect_left

from contract.form import Section
from contract.headings import Heading, Patterns, fences, holding
from contract.kinds import Fixed
from contract.violation import Reading, Record, Violation


def diagnose(patterns: Patterns, text: str) -> Reading:
    """Every structural fault of `text`; without any, writing the record gives `text` again.

    One leading space is the wire format of Mistral's tokenizer and not a fault.
    """
    if not text.strip():
        return Reading({}, (Violation("", "EMPTY_ANSWER", text, 0, len(text)),), {})
    if text[0] != " ":
        return _Diagnosis(patterns, text).reading()
    reading = _Diagnosis(patterns, text[1:]).reading()
    violations = [Violation(v.section, v.cls, v.found, v.start + 1, v.end + 1) for v in reading.violations]
    spans = {name: (start + 1, end + 1) for name, (start, end) in reading.spans.items()}
    return Reading(reading.record, tuple(violations), spans)


class _Diagnosis:
    def __init__(self, patterns: Patterns, text: str) -> None:
        self.patterns, self.form, self.text = patterns, patterns.form, text
        self.record: Record = {}
        self.spans: dict[str, tuple[int, int]] = {}
        self.violations: list[Violation] = []
        self.fences = list(fences(text))
        self.low, self.high = 0, len(text)  # the part that is read as the answer
        self.headings = self._headings()

    def reading(self) -> Reading:
        first = self.headings[0].start if self.headings else self.high
        self._stray(self.low, first, "PREAMBLE", "")
        for heading, following in zip(self.headings, [*self.headings[1:], None], strict=False):
            if heading.section.name not in self.record:  # a doubled section is a fault as a whole
                self._part(heading, following)
        self._order()
        return Reading(self.record, tuple(sorted(self.violations, key=lambda v: v.start)), self.spans)

    def _add(self, section: str, cls: str, start: int, end: int, expected: str = "") -> None:
        self.violations.append(Violation(section, cls, self.text[start:end] or expected, start, end))

    def _headings(self) -> list[Heading]:
        """The headings outside of code.  If all of them are in one fence, the answer is read from there: that is a fault."""
        found = list(self.patterns.headings(self.text))
        outside = [heading for heading in found if not holding(self.fences, heading.start)]
        if outside or not found:
            return outside
        fence = holding(self.fences, found[0].start)
        assert fence is not None
        self._add("", "CODE_FENCE", fence.start, fence.inside)
        for start, end, cls in ((0, fence.start, "PREAMBLE"), (fence.end, len(self.text), "POSTAMBLE")):
            if self.text[start:end].strip():
                self._add("", cls, start, end)
        self.low, self.high, self.fences = fence.inside, len(self.text[: fence.inside_end].rstrip("\n")), []
        return [heading for heading in found if heading.start < fence.inside_end]

    def _part(self, heading: Heading, following: Heading | None) -> None:
        """Read one section: from its heading to the next one."""
        name = heading.section.name
        end = following.start if following else self.high
        if not heading.exact:
            self._add(name, "HEADING_VARIANT", heading.start, heading.end)
        if not self.text[heading.end : end].strip():
            self._add(name, "EMPTY_SECTION", heading.start, heading.end)
            return self._keep(heading.section, heading.end, heading.end)
        if following:
            bare = heading.end + len(self.text[heading.end : end].rstrip("\n"))
            if following.exact and self.text[bare:end] != self.form.separator:
                self._add(following.section.name, "HEADING_VARIANT", bare, end)
            end = bare
        self._body(heading, self._begin(heading, end), end, following is None)

    def _begin(self, heading: Heading, end: int) -> int:
        """Where the body begins: behind the gap, or behind the white space found in its place."""
        gap = self.form.gap(heading.section)
        begin = heading.end + len(gap)
        if heading.exact and self.text.startswith(gap, heading.end) and not self.text[begin : begin + 1].isspace():
            return begin
        begin = end - len(self.text[heading.end : end].lstrip())
        if heading.exact and not holding(self.fences, begin):
            self._add(heading.section.name, "HEADING_VARIANT", heading.start, begin)
        return begin

    def _body(self, heading: Heading, begin: int, end: int, last: bool) -> None:
        section, otherwise = heading.section, "POSTAMBLE" if last else "WRONG_VALUE"
        fence, behind = holding(self.fences, begin), end
        if fence:  # the whole body is in a fence: that is a fault, and the text inside is the body
            self._add(section.name, "CODE_FENCE", fence.start, fence.inside)
            begin = fence.inside
            end = begin + len(self.text[begin : min(fence.inside_end, end)].rstrip("\n"))
            self._stray(min(fence.end, behind), behind, otherwise, section.name)
        number = bisect_left(self.fences, begin, key=lambda fence: fence.start)
        code = self.fences[number].start if number < len(self.fences) else end
        own = begin + _own(section, self.text[begin : min(code, end)])
        if last and not self.text[own:end].strip():
            own = begin + len(self.text[begin:own].rstrip())
        self._keep(section, begin, own)
        self._stray(own, end, otherwise, section.name)

    def _keep(self, section: Section, begin: int, end: int) -> None:
        """Keep the value between the two places, and note what breaks the section's own rules."""
        body = self.text[begin:end]
        self.record[section.name], faults = section.kind.read(body)
        self.spans[section.name] = (begin, end)
        if not body:
            return
        if all(_unmarked(section, line) == "" for line in body.split("\n")):
            self._add(section.name, "EMPTY_SECTION", begin, end)
            return
        for cls, start, stop in faults:
            self._add(section.name, cls, begin + start, begin + stop)

    def _stray(self, start: int, end: int, otherwise: str, section: str) -> None:
        """Classify text that belongs to no section: code, a section the task does not have, or other text."""
        if not self.text[start:end].strip():
            if start < end:
                self._add("" if otherwise != "WRONG_VALUE" else section, otherwise, start, end)
            return
        first = bisect_left(self.fences, start, key=lambda fence: fence.start)
        last = bisect_left(self.fences, end, key=lambda fence: fence.start)
        for fence in self.fences[first:last]:
            self._talk(start, fence.start, otherwise, section)
            start = min(fence.end, end)
            self._add(section, "CODE_FENCE", fence.start, start)
        self._talk(start, end, otherwise, section)

    def _talk(self, start: int, end: int, otherwise: str, section: str) -> None:
        if not self.text[start:end].strip():
            return
        pattern = self.patterns.own_extra if otherwise == "PREAMBLE" else self.patterns.any_extra
        extra = pattern.search(self.text, start, end)
        if extra:
            self._add("", "EXTRA_SECTION", extra.start(), end)
            end = extra.start()
        if self.text[start:end].strip():
            self._add("" if otherwise != "WRONG_VALUE" else section, otherwise, start, end)

    def _order(self) -> None:
        """Missing, doubled and misplaced sections; another spelling of its heading is enough for a section to be there."""
        first: dict[str, Heading] = {}
        ends: dict[str, int] = {}
        doubled: set[str] = set()
        for heading, following in zip(self.headings, [*self.headings[1:], None], strict=False):
            end = following.start if following else self.high
            name = heading.section.name
            if first.setdefault(name, heading) is heading:
                ends[name] = end
            elif name not in doubled:
                doubled.add(name)
                self._add(name, "DUPLICATE_SECTION", heading.start, end)
        place = self.headings[0].start if self.headings else self.high
        for section in self.form.sections:
            place = ends.get(section.name, place)
            if section.name not in first:
                self._add(section.name, section.kind.missing, place, place, self.form.head(section))
        ordered = [section.name for section in self.form.sections if section.name in first]
        for name, expected in zip(first, ordered, strict=True):
            if name != expected:
                return self._add("", "WRONG_ORDER", first[name].start, first[name].end)


def _own(section: Section, body: str) -> int:
    """How much of `body` belongs to the section: its first line, or its list up to the last marked line."""
    kind = section.kind
    if isinstance(kind, Fixed) and body.startswith(kind.text):
        return len(kind.text)
    if not kind.block:
        return len(body.partition("\n")[0])
    lines = body.partition("\n\n")[0].split("\n")
    last = max((i for i, line in enumerate(lines) if line.startswith(kind.marks)), default=0)
    return len("\n".join(lines[: last + 1]))


def _unmarked(section: Section, line: str) -> str:
    """The text of a line behind its mark."""
    for mark in section.kind.marks:
        if line.startswith(mark.rstrip()):
            return line[len(mark.rstrip()) :].strip()
    return line.strip()
