"""A response text + its form -> Reading: the record, and every rule that the text breaks.

A clean text matches one pattern; only a text that does not match is searched for its faults.
"""

from __future__ import annotations

from contract.diagnosis import diagnose
from contract.form import Form
from contract.headings import Patterns
from contract.violation import Reading, Record, Violation

LONGEST = 50_000  # characters of a broken text that are searched for faults; no model's answer is longer


class Reader:
    """Reads texts of one form; its patterns are compiled once."""

    def __init__(self, form: Form) -> None:
        self._names = [section.name for section in form.sections]
        self._kinds = [section.kind for section in form.sections]
        self.patterns = Patterns(form)

    def read(self, text: str) -> Reading:
        """Every structural fault of `text`; without any, writing the record gives `text` again.

        One leading space is the wire format of Mistral's tokenizer and not a fault.
        """
        return self.clean(text) or self._broken(text)

    def clean(self, text: str) -> Reading | None:
        """The reading of a text without any fault; None for every other text."""
        match = self.patterns.whole.fullmatch(text, text[:1] == " ")
        if match is None:
            return None
        record: Record = {}
        for name, kind, body in zip(self._names, self._kinds, match.groups(), strict=True):
            record[name], faults = kind.read(body)
            if faults:
                return None
        return Reading(record, (), dict(zip(self._names, match.regs[1:], strict=True)))

    def _broken(self, text: str) -> Reading:
        start = 1 if text[:1] == " " else 0
        if not text.strip():
            return Reading({}, (Violation("", "EMPTY_ANSWER", text, 0, len(text)),), {})
        reading = diagnose(self.patterns, text[start : start + LONGEST])
        if not reading.violations:  # the fault is further behind: a text that is not clean never passes
            end = min(start + LONGEST, len(text))
            return Reading(reading.record, (Violation("", "POSTAMBLE", text[end:], end, len(text)),), {})
        return _shifted(reading, start) if start else reading


def _shifted(reading: Reading, by: int) -> Reading:
    violations = [Violation(v.section, v.cls, v.found, v.start + by, v.end + by) for v in reading.violations]
    spans = {name: (start + by, end + by) for name, (start, end) in reading.spans.items()}
    return Reading(reading.record, tuple(violations), spans)
