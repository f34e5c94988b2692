"""Example + Answer -> Verdict: does the answer adhere, which failure classes does it show, is it on the subject.

Three readings, always together: strict (the contract, exactly), loose and lenient (eval/judge/readings.py).  Every answer that
passes one passes the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contract.contract import Contract, Reading, Record, Violation
from contract.example import Example
from contract.kinds import Prose
from eval.judge.content_faults import signs
from eval.judge.readings import lenient_forms, loose_forms
from models.answers import REPEATED, Answer
from plumbing.wording import mentions

# The closed list of failure classes, all but the five of eval/judge/content_faults.py found by the contract's own reading.  An answer's
# primary class is the first of this list that it shows: what explains the rest comes first.
CLASSES = (
    # what came is no answer
    "EMPTY_ANSWER",       # nothing but white space
    "REFUSAL",            # "I cannot help with that": then sections are missing, or all say the same
    "REPETITION",         # a loop, broken off by the server or not: the text is cut short, too long, doubled
    "TEMPLATE_LEAK",      # the model ran on over its own stop: talk, doubled sections and the length limit follow
    "TRUNCATED",          # the server's length limit, or broken off within a sentence: the last sections are missing
    # the whole has another form
    "CODE_FENCE",         # in code no heading counts
    "DUPLICATE_SECTION",
    "WRONG_ORDER",
    "MISSING_SECTION",
    "NOTE_MISSING",       # the missing section is one of fixed text
    "EXTRA_SECTION",
    # one section is not what it should be
    "PLACEHOLDER",        # "[insert definition]" is too short as well
    "EMPTY_SECTION",
    "PREAMBLE",
    "POSTAMBLE",
    "HEADING_VARIANT",    # the heading in another dress, or with other white space around it
    "NOTE_WEAK",          # the fixed text without its words
    "WRONG_VALUE",        # of another form than the section's kind: two paragraphs, no such option, a list without marks
    "TOO_SHORT",
    "TOO_LONG",
)  # fmt: skip
_RANK = {cls: rank for rank, cls in enumerate(CLASSES)}


@dataclass(frozen=True)
class Verdict:
    violations: tuple[Violation, ...]  # every broken rule with the stretch that breaks it, in the text's order
    primary: str  # the class that the answer counts under; "" when it adheres
    strict: bool  # no violation at all
    loose: bool  # the text or a forgiven variant of it has none
    lenient: bool  # nor has it once the headings are undressed
    named: bool | None  # the requested concept stands in the first prose section; None when the contract has none

    @property
    def adheres(self) -> bool:
        return self.strict


def judge(contract: Contract, example: Example, answer: Answer) -> Verdict:
    """The verdict on an answer that came: an error is no answer and must not be judged."""
    assert not answer.error_kind, "an error is counted apart, never judged"
    text = answer.text
    reading = contract.read(text)
    violations = _violations(contract, example, reading, answer)
    strict = not violations
    stopped = answer.done_reason not in ("length", REPEATED)  # else no form of the text can mend it
    loose = strict or (stopped and any(_is_clean(contract, example, form) for form in loose_forms(contract, text)))
    lenient = loose or (stopped and any(_is_clean(contract, example, form) for form in lenient_forms(contract, text)))
    named = _named(contract, example, reading.record)
    return Verdict(violations, primary(violations), strict, loose, lenient, named)


def primary(violations: Sequence[Violation]) -> str:
    """The class that explains the rest.  ValueError on a class outside the list: an unknown rule never passes."""
    if not violations:
        return ""
    classes = {violation.cls for violation in violations}
    unknown = classes - _RANK.keys()
    if unknown:
        raise ValueError(f"unknown failure classes: {', '.join(sorted(unknown))}")
    return min(classes, key=_RANK.__getitem__)


def _violations(contract: Contract, example: Example, reading: Reading, answer: Answer) -> tuple[Violation, ...]:
    found = signs(contract, reading, answer.text, example.record)
    if answer.done_reason in _BROKEN_OFF:
        end = len(answer.text)
        start = max(0, end - SHOWN_END)
        found.append(Violation("", _BROKEN_OFF[answer.done_reason], answer.text[start:], start, end))
        if not answer.text.strip():
            return tuple(found)  # nothing came because it was broken off
    if not found:
        return reading.violations
    return tuple(sorted((*reading.violations, *found), key=lambda violation: violation.start))


_BROKEN_OFF = {"length": "TRUNCATED", REPEATED: "REPETITION"}  # done_reason -> class
SHOWN_END = 40  # characters of the end of an answer that was broken off


def _is_clean(contract: Contract, example: Example, text: str) -> bool:
    reading = contract.reader.clean(text)
    return reading is not None and not signs(contract, reading, text, example.record)


def _named(contract: Contract, example: Example, record: Record) -> bool | None:
    for section in contract.sections:
        if isinstance(section.kind, Prose):
            return mentions(str(record.get(section.name, "")), example.concept)
    return None
