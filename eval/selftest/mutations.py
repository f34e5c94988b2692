"""A clean example -> answers with one fault each, several for every failure class.

Each is written by hand from the task's sections and records, never with a pattern of the judge: a fault made from the
judge's own pattern would prove nothing.  A class that a task cannot show (NOTE_WEAK without a fixed text) has no mutant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from contract.contract import Contract
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Prose
from eval.selftest import section_faults as faults
from eval.selftest.clean_answer import TEXTS, Clean, Made
from models.answers import REPEATED, Answer


@dataclass(frozen=True)
class Mutant:
    cls: str  # the fault that was put in
    what: str
    answer: Answer


def mutants(contract: Contract, example: Example) -> list[Mutant]:
    """Every mutant of one clean example, always the same."""
    clean = Clean(contract, example)
    found = []
    for cls, mutate in MUTATIONS.items():
        for what, made in mutate(clean):
            answer = Answer(made) if isinstance(made, str) else made
            if answer != Answer(clean.text):  # `Note: ` is a heading variant in one task and the heading in another
                found.append(Mutant(cls, what, answer))
    return found


def _missing(clean: Clean) -> Made:
    for number, section in enumerate(clean.sections):
        rest = clean.pieces[:number] + clean.pieces[number + 1 :]
        if rest and not isinstance(section.kind, Fixed):
            yield f"without {section.name}", clean.join(rest)
    if len(clean.pieces) > 1 and not isinstance(clean.sections[0].kind, Fixed):
        yield "the last one alone", clean.pieces[-1]
    if any(not isinstance(section.kind, Fixed) for section in clean.sections):
        yield "no section at all", "It is hard to say what this could mean here, and much depends on the case."


def _wrong_order(clean: Clean) -> Made:
    for number in range(len(clean.pieces) - 1):
        swapped = list(clean.pieces)
        swapped[number : number + 2] = swapped[number : number + 2][::-1]
        yield f"{clean.sections[number].name} one later", clean.join(swapped)
    if len(clean.pieces) > 2:
        yield "the last one first", clean.join([clean.pieces[-1], *clean.pieces[:-1]])
        yield "backwards", clean.join(clean.pieces[::-1])


def _duplicate(clean: Clean) -> Made:
    for number, piece in enumerate(clean.pieces):
        yield f"{clean.sections[number].name} twice", clean.instead(number, clean.join([piece, piece]))
    if len(clean.pieces) > 1:
        yield "the first one again at the end", clean.join([*clean.pieces, clean.pieces[0]])
        yield "all of it twice", clean.join([*clean.pieces, *clean.pieces])


def _truncated(clean: Clean) -> Made:
    size = len(clean.text)
    for share in (0.2, 0.5, 0.9, 1):
        yield f"stopped by the limit at {share:.0%}", Answer(clean.text[: round(share * size)], "length")
    for number, section, body in clean.sentences():
        whole = clean.join([*clean.pieces[:number], ""]) + clean.piece(section, "")
        inside = [n for n in range(1, len(body)) if body[n - 1 : n + 1].isalpha()]
        for place in clean.chance.sample(inside, 2):
            yield f"ends within a word of {section.name}", whole.lstrip("\n") + body[:place]
        yield (
            f"{section.name} ends without its last words",
            clean.body(number, body.rpartition(" ")[0].rstrip(".,;:!?")),
        )
        yield f"{section.name} ends in an ellipsis", clean.body(number, body.rstrip(".") + "...")
    for number, section, body in clean.of(Fixed):
        if number == len(clean.sections) - 1:
            yield f"ends within {section.name}", clean.text[: -(len(body) // 2)]
    head = clean.contract.head(clean.sections[-1])
    if len(clean.sections) > 1 and len(head) > 2:
        yield "ends within a heading", clean.join([*clean.pieces[:-1], head[: len(head) // 2]])


def _preamble(clean: Clean) -> Made:
    for text in TEXTS["preambles"]:
        talk = text.format(concept=clean.example.concept, request=clean.example.request)
        yield f"begins with {talk!r}", talk + clean.text


def _postamble(clean: Clean) -> Made:
    for talk in TEXTS["postambles"]:
        yield f"ends with {talk!r}", clean.text + talk


def _extra(clean: Clean) -> Made:
    taken = {section.title for section in clean.sections}
    for title in ("Treatment", "Summary", "Further Reading"):
        if title not in taken:
            own = clean.contract.heading.format(title=title) + "There is more to say about this."
            for number in range(1, len(clean.pieces) + 1):
                yield (
                    f"{title} as section {number + 1}",
                    clean.join([*clean.pieces[:number], own, *clean.pieces[number:]]),
                )
            yield f"{title} in Markdown", f"{clean.text}\n\n## {title}\nThere is more to say about this."
            yield f"{title} in bold", f"{clean.text}\n\n**{title}:** There is more to say about this."


def _fenced(clean: Clean) -> Made:
    for mark, word in (("```", ""), ("```", "markdown"), ("~~~", "text"), ("````", "")):
        yield f"all within {mark}{word}", f"{mark}{word}\n{clean.text}\n{mark}"
    yield "within a fence that never ends", f"```\n{clean.text}"
    yield "within a fence, with talk around", f"Here it is:\n\n```\n{clean.text}\n```\n\nBye."
    for number, section in enumerate(clean.sections):
        yield f"{section.name} within a fence", clean.instead(number, f"```\n{clean.pieces[number]}\n```")


def _leaking(clean: Clean) -> Made:
    for token in TEXTS["marks"]:
        yield f"{token} at the end", clean.text + token
        yield f"{token} at the start", f"{token} {clean.text}"
        yield f"{token} within", clean.text.replace(" ", f" {token} ", 2)
    yield "the next turn", f"{clean.text}</s>[INST] And what else?[/INST] {clean.text}"
    for role in ("User", "Assistant", "Human", "### Instruction", "### Response", "System"):
        yield f"{role} at the end", f"{clean.text}\n\n{role}: And then?"
        yield f"{role} at the start", f"{role}:\n{clean.text}"


def _looping(clean: Clean) -> Made:
    yield "broken off by the server", Answer(clean.text[: len(clean.text) // 2], REPEATED)
    yield "broken off by the server at once", Answer("", REPEATED)
    for phrase in ("water ", "and water ", "the blood in the ", "it is known that in many of the "):
        yield f"{phrase!r} without end", clean.text + " " + phrase * 12
        for number, section, body in clean.of(Prose):
            first, _, rest = body.partition(" ")
            yield f"{phrase!r} again and again in {section.name}", clean.body(number, f"{first} {phrase * 6}{rest}")
    for number, section, body in clean.of(Prose):
        yield (
            f"{section.name} says one sentence over and over",
            clean.body(number, f"{body} " + "The kidneys then excrete more of it. " * 4 + body),
        )
        yield f"{section.name} laughs", clean.body(number, f"{body} " + "ha" * 300)
    for number, section, body in clean.of(Items):
        yield f"{section.name} lists one thing", clean.body(number, body + "\n- Ask about the pain again" * 6)


def _empty(clean: Clean) -> Made:
    for text in ("", " ", "\n", "\n\n\n", " \t\n ", "\u00a0", "\r\n"):
        yield repr(text), text


def _refusing(clean: Clean) -> Made:
    for text in TEXTS["refusals"]:
        yield text, text
        yield f"{text} in every section", clean.join([p if isinstance(s.kind, Fixed | Choice) else clean.piece(s, text)
                                                      for s, p in zip(clean.sections, clean.pieces, strict=True)])  # fmt: skip
        if clean.of(Prose):
            number, section, body = clean.chance.choice(clean.of(Prose))
            yield f"{text} in {section.name}", clean.body(number, text)
            if body[-1] in ".!?":
                yield f"{text} behind {section.name}", clean.body(number, f"{body} {text}")


MUTATIONS: dict[str, Callable[[Clean], Made]] = {
    "REPETITION": _looping, "EMPTY_ANSWER": _empty, "REFUSAL": _refusing, "TEMPLATE_LEAK": _leaking, "TRUNCATED": _truncated,
    "CODE_FENCE": _fenced, "DUPLICATE_SECTION": _duplicate, "WRONG_ORDER": _wrong_order, "MISSING_SECTION": _missing,
    "NOTE_MISSING": faults.note_missing, "EXTRA_SECTION": _extra, "PLACEHOLDER": faults.placeholder, "EMPTY_SECTION": faults.empty_section,
    "PREAMBLE": _preamble, "POSTAMBLE": _postamble, "HEADING_VARIANT": faults.dressed, "NOTE_WEAK": faults.note_weak, "TOO_SHORT": faults.short,
    "TOO_LONG": faults.long, "WRONG_VALUE": faults.wrong_value,
}  # fmt: skip
