"""Example + Answer -> Verdict: does the answer adhere, which failure classes does it show, is it on the subject."""

from __future__ import annotations

import re
from dataclasses import dataclass

from contract.contract import Contract, Record, Violation
from contract.example import Example
from contract.kinds import Prose
from eval.backends import REPEATED, Answer

# The closed list of failure classes.  An answer's primary class is the first of this list that it shows: what explains
# the rest comes first (an answer cut short also lacks its last sections).
CLASSES = (
    "REPETITION", "EMPTY_ANSWER", "TRUNCATED", "TEMPLATE_LEAK", "DUPLICATE_SECTION", "WRONG_ORDER", "MISSING_SECTION",
    "NOTE_MISSING", "EXTRA_SECTION", "EMPTY_SECTION", "PREAMBLE", "POSTAMBLE", "HEADING_VARIANT", "NOTE_WEAK",
    "TOO_SHORT", "TOO_LONG", "WRONG_VALUE",
)  # fmt: skip

# Marks of the prompt's own syntax (Mistral, Llama 2, Gemma, ChatML, Zephyr), which no answer may hold.
LEAKS = re.compile(
    r"</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<\|(?:im_start|im_end|system|user|assistant|eot_id)\|>"
)


@dataclass(frozen=True)
class Verdict:
    violations: tuple[Violation, ...]  # every broken rule with the text it was found in; none: the answer adheres
    primary: str  # the class that the answer counts under; "" when it adheres
    named: bool | None  # the requested concept stands in the first prose section; None when the contract has none
    keywords: float | None  # share of the example's keywords that the answer holds; None when it has none

    @property
    def adheres(self) -> bool:
        return not self.violations


def judge(contract: Contract, example: Example, answer: Answer) -> Verdict:
    """The strict verdict.  `answer` is one that came: an error is no answer and must not be judged."""
    assert not answer.error_kind, "an error is counted apart, never judged"
    if answer.done_reason == REPEATED:
        violations: tuple[Violation, ...] = (Violation("", "REPETITION", ""),)
        record: Record = {}
    else:
        reading = contract.read(answer.text)
        violations, record = _of_the_whole(answer) + reading.violations, reading.record
    return Verdict(violations, primary(violations), _named(contract, example, record), _keywords(example, answer.text))


def primary(violations: tuple[Violation, ...]) -> str:
    """The class that explains the rest.  ValueError on a class outside the list: an unknown rule never passes."""
    unknown = {v.cls for v in violations} - set(CLASSES)
    if unknown:
        raise ValueError(f"unknown failure classes: {', '.join(sorted(unknown))}")
    return min((v.cls for v in violations), key=CLASSES.index, default="")


def mentions(text: str, concept: str) -> bool:
    """Whether `text` names the concept: any case, as whole words, a regular plural and a hyphen for a space allowed.

    >>> mentions("Biopsies take a piece of tissue.", "biopsy"), mentions("An atriumlike part", "atrium")
    (True, False)
    """
    name = r"[\s-]+".join(re.escape(word) for word in re.split(r"[\s-]+", concept))
    name = name[:-1] + "(?:ys?|ies)" if name.endswith("y") else name + "(?:e?s)?"
    return re.search(rf"(?<!\w){name}(?!\w)", text, re.IGNORECASE) is not None


def _of_the_whole(answer: Answer) -> tuple[Violation, ...]:
    found = [Violation("", "TRUNCATED", answer.text[-40:])] if answer.done_reason == "length" else []
    leak = LEAKS.search(answer.text)
    return (*found, Violation("", "TEMPLATE_LEAK", leak.group())) if leak else tuple(found)


def _named(contract: Contract, example: Example, record: Record) -> bool | None:
    section = next((s for s in contract.sections if isinstance(s.kind, Prose)), None)
    return mentions(str(record.get(section.name, "")), example.concept) if section else None


def _keywords(example: Example, text: str) -> float | None:
    """A keyword counts at the start of a word: `clot` is found in "clotting"."""
    if not example.keywords:
        return None
    found = sum(re.search(rf"(?<!\w){re.escape(k)}", text, re.IGNORECASE) is not None for k in example.keywords)
    return found / len(example.keywords)
