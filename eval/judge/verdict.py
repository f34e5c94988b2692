"""Example + Answer -> Verdict: does the answer keep the contract, which failure classes does it show?

There are always three readings: strict (the contract, exactly), loose and lenient (eval/judge/readings.py).  Every
answer that passes one of them passes the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contract.contract import Contract, Reading, Record, Violation
from contract.example import Example
from contract.kinds import Prose
from eval.judge.content_faults import signs
from eval.judge.readings import LONGEST, lenient_forms, loose_forms
from models.answers import REPEATED, Answer
from plumbing.wording import mentions

# The closed list of failure classes, each as the end of "an answer that ...".  eval/judge/content_faults.py finds five
# of them, the contract's own reading the others.  An answer's primary class is the first of this list that it shows,
# so a class that explains others comes before them.  contract/diagnosis.py decides about headings and sections,
# contract/kinds.py about the text of a section (NOTE_WEAK, WRONG_VALUE, TOO_SHORT, TOO_LONG).
MEANING = {
    # what came is not an answer
    "EMPTY_ANSWER": "is nothing but white space",
    "REFUSAL": "declines to answer",  # then sections are missing, or all say the same
    "REPETITION": "repeats itself in a loop",  # then the text is cut short, too long or doubled
    "TEMPLATE_LEAK": "shows marks of a prompt's syntax, or speaks for the user",  # the model ran past its own stop
    "TRUNCATED": "breaks off before its end",  # then the last sections are missing
    # the whole has another form
    "CODE_FENCE": "puts text into a code block",  # in code no heading counts
    "DUPLICATE_SECTION": "has a section twice",
    "WRONG_ORDER": "has its sections in another order",
    "MISSING_SECTION": "lacks a section",
    "NOTE_MISSING": "lacks a section of fixed text",
    "EXTRA_SECTION": "has a section that the task does not have",
    # one section is not what it should be
    "PLACEHOLDER": "leaves a slot to be filled in",  # "[insert definition]" is too short as well
    "EMPTY_SECTION": "has a heading with nothing below it",
    "PREAMBLE": "has text before the first section",
    "POSTAMBLE": "has text after the last section",
    "HEADING_VARIANT": "writes a heading, or the white space around it, in another way",
    "NOTE_WEAK": "lacks some words of the fixed text",
    "WRONG_VALUE": "breaks the form of a section: two paragraphs, an unknown option, a list without marks",
    "TOO_SHORT": "has a section with too few words or items",
    "TOO_LONG": "has a section with too many words or items",
}
CLASSES = tuple(MEANING)
READINGS = ("strict", "loose", "lenient")


@dataclass(frozen=True)
class Verdict:
    violations: tuple[Violation, ...]  # every broken rule with the text that breaks it, in the text's order
    primary: str  # the class that the answer counts under; "" when it adheres
    strict: bool  # no violation at all
    loose: bool  # the text or a forgiven variant of it has none
    lenient: bool  # the same, with every heading rewritten as the contract writes it
    named: bool | None  # the first prose section names the requested concept; None when the contract has no prose
    reading: Reading  # the contract's own reading of the text: the record, and where each section is

    @property
    def adheres(self) -> bool:
        return self.strict


def judge(contract: Contract, example: Example, answer: Answer) -> Verdict:
    """The verdict on an answer that came.  An error is not an answer and must not be judged."""
    assert not answer.error_kind, "errors are counted separately, never judged"
    text = answer.text
    reading = _read(contract, text)
    violations = _violations(contract, example, reading, answer)
    strict = not violations

    def forgiven(forms: Iterator[str]) -> bool:  # no variant of a broken-off text can be right
        finished = answer.done_reason not in _BROKEN_OFF
        return finished and any(form != text and _is_clean(contract, example, form) for form in forms)

    loose = strict or forgiven(loose_forms(contract, text))
    lenient = loose or forgiven(lenient_forms(contract, text))
    named = _named(contract, example, reading.record)
    return Verdict(violations, primary(violations), strict, loose, lenient, named, reading)


def primary(violations: Sequence[Violation]) -> str:
    """The class that explains the others; "" without a violation.  ValueError on a class that is not in the list."""
    return min((violation.cls for violation in violations), key=list(CLASSES).index, default="")


def _violations(contract: Contract, example: Example, reading: Reading, answer: Answer) -> tuple[Violation, ...]:
    found = signs(contract, reading, answer.text, example.record)
    if answer.done_reason in _BROKEN_OFF:
        end = len(answer.text)
        start = max(0, end - SHOWN_END)
        found.append(Violation("", _BROKEN_OFF[answer.done_reason], answer.text[start:], start, end))
        if not answer.text.strip():
            return tuple(found)  # nothing came because it was broken off
    return tuple(sorted((*reading.violations, *found), key=lambda violation: violation.start))


_BROKEN_OFF = {"length": "TRUNCATED", REPEATED: "REPETITION"}  # done_reason -> class
SHOWN_END = 40  # characters from the end of a broken-off answer


def _read(contract: Contract, text: str) -> Reading:
    """The reading of the first LONGEST characters; a longer text is never clean."""
    reading = contract.read(text[:LONGEST])
    if len(text) <= LONGEST or reading.violations:
        return reading
    rest = Violation("", "POSTAMBLE", text[LONGEST:], LONGEST, len(text))
    return Reading(reading.record, (rest,), reading.spans)


def _is_clean(contract: Contract, example: Example, text: str) -> bool:
    reading = _read(contract, text)
    return reading.adheres and not signs(contract, reading, text, example.record)


def _named(contract: Contract, example: Example, record: Record) -> bool | None:
    for section in contract.sections:
        if isinstance(section.kind, Prose):
            return mentions(str(record.get(section.name, "")), example.concept)
    return None
