"""A response text + its form -> Reading: the record, and every rule that the text breaks."""

from __future__ import annotations

from contract.diagnosis import diagnose
from contract.form import Form
from contract.headings import Patterns
from contract.violation import Reading, Violation


class Reader:
    """Reads texts of one form; its patterns are compiled once."""

    def __init__(self, form: Form) -> None:
        self.patterns = Patterns(form)

    def read(self, text: str) -> Reading:
        """Every structural fault of `text`; without any, writing the record gives `text` again.

        One leading space is the wire format of Mistral's tokenizer and not a fault.
        """
        if not text.strip():
            return Reading({}, (Violation("", "EMPTY_ANSWER", text, 0, len(text)),), {})
        if text[0] != " ":
            return diagnose(self.patterns, text)
        reading = diagnose(self.patterns, text[1:])
        violations = [Violation(v.section, v.cls, v.found, v.start + 1, v.end + 1) for v in reading.violations]
        spans = {name: (start + 1, end + 1) for name, (start, end) in reading.spans.items()}
        return Reading(reading.record, tuple(violations), spans)
