"""Which class each broken answer gets, and which stretch of it is marked."""

from __future__ import annotations

import pytest

from contract.contract import Contract, load_contract
from tests.strategies import FLASHCARDS, PUBMEDQA, SOAP, load_text

NOTE = "This is educational information only. Always consult healthcare professionals for medical decisions."
D = "**Definition**: Edema is swelling from fluid in the tissues."
E = "**Explanation**: Fluid leaves the capillaries faster than the lymph vessels can carry it away."
C = "**Clinical Relevance**: Swollen ankles can be the first sign of heart, liver or kidney disease."
N = f"**Note**: {NOTE}"
GOOD = "\n\n".join([D, E, C, N])

# (what is wrong, the answer, the violations as section:class, in order)
BROKEN = [
    ("nothing", GOOD, []),
    ("empty", "", [":EMPTY_ANSWER"]),
    ("only white space", " \n\u2028\t", [":EMPTY_ANSWER"]),
    ("no heading at all", "Edema is swelling.", [":PREAMBLE", "definition:MISSING_SECTION",
        "explanation:MISSING_SECTION", "clinical_relevance:MISSING_SECTION", "note:NOTE_MISSING"]),
    ("talk before", "Sure! Here you go:\n\n" + GOOD, [":PREAMBLE"]),
    ("blank lines before", "\n\n" + GOOD, [":PREAMBLE"]),
    ("a byte order mark before", "\ufeff" + GOOD, ["definition:HEADING_VARIANT"]),
    ("talk after", GOOD + "\n\nI hope this helps!", [":POSTAMBLE"]),
    ("a line break after", GOOD + "\n", [":POSTAMBLE"]),
    ("a space after", GOOD + " ", [":POSTAMBLE"]),
    ("talk on the note's line", GOOD + " I hope this helps!", [":POSTAMBLE"]),
    ("a space after the last prose", "\n\n".join([D, E, C]) + " ", [":POSTAMBLE", "note:NOTE_MISSING"]),
    ("a section left out", "\n\n".join([D, C, N]), ["explanation:MISSING_SECTION"]),
    ("the first left out", "\n\n".join([E, C, N]), ["definition:MISSING_SECTION"]),
    ("the note left out", "\n\n".join([D, E, C]), ["note:NOTE_MISSING"]),
    ("the note weakened", GOOD.replace("Always consult", "Consult"), ["note:NOTE_WEAK"]),
    ("the note cut", GOOD[:-20], ["note:NOTE_WEAK"]),
    ("the note with other capitals", GOOD.replace("Always consult", "always consult"), ["note:WRONG_VALUE"]),
    ("two swapped", "\n\n".join([D, C, E, N]), [":WRONG_ORDER"]),
    ("one twice", "\n\n".join([D, E, E, C, N]), ["explanation:DUPLICATE_SECTION"]),
    ("one again at the end", "\n\n".join([D, E, C, N, D]), ["definition:DUPLICATE_SECTION"]),
    ("one nobody asked for", "\n\n".join([D, E, "**Treatment**: Lift them.", C, N]), [":EXTRA_SECTION"]),
    ("one more at the end", GOOD + "\n\n**Sources**: none", [":EXTRA_SECTION"]),
    ("one more and talk", GOOD + "\n\n**Sources**: none\n\nBye.", [":EXTRA_SECTION"]),
    ("one more at the start", "**Term**: Edema\n\n" + GOOD, [":EXTRA_SECTION"]),
    ("talk and one more at the start", "Sure!\n\n**Term**: Edema\n\n" + GOOD, [":PREAMBLE", ":EXTRA_SECTION"]),
    ("a title at the start", "# Edema\n\n" + GOOD, [":PREAMBLE"]),
    ("one more in another dress", GOOD + "\n\n## Sources\nnone", [":EXTRA_SECTION"]),
    ("talk and one more", GOOD + "\n\nBye.\n\n**Sources:** none", [":POSTAMBLE", ":EXTRA_SECTION"]),
    ("one empty", "\n\n".join([D, "**Explanation**: ", C, N]), ["explanation:EMPTY_SECTION"]),
    ("one empty, no space", "\n\n".join([D, "**Explanation**:", C, N]), ["explanation:EMPTY_SECTION"]),
    ("the last one empty", "\n\n".join([D, E, C, "**Note**:"]), ["note:EMPTY_SECTION"]),
    ("another mark", GOOD.replace("**Explanation**:", "## Explanation\n"), ["explanation:HEADING_VARIANT"]),
    ("colon inside", GOOD.replace("**Explanation**:", "**Explanation:**"), ["explanation:HEADING_VARIANT"]),
    ("on a line of its own", GOOD.replace("**Explanation**: ", "### 2. Explanation\n\n"),
        ["explanation:HEADING_VARIANT"]),
    ("underscores", GOOD.replace("**Clinical Relevance**", "__clinical_relevance__"),
        ["clinical_relevance:HEADING_VARIANT"]),
    ("a dash", GOOD.replace("**Note**:", "Note –"), ["note:HEADING_VARIANT"]),
    ("other case", GOOD.replace("**Clinical Relevance**", "**CLINICAL relevance**"),
        ["clinical_relevance:HEADING_VARIANT"]),
    ("numbered", GOOD.replace("**Note**", "4. **Note**"), ["note:HEADING_VARIANT"]),
    ("indented", GOOD.replace("**Note**", "  **Note**"), ["note:HEADING_VARIANT"]),
    ("quoted", GOOD.replace("**Note**", "> **Note**"), [":POSTAMBLE", "note:NOTE_MISSING"]),
    ("quoted and dressed", GOOD.replace("**Note**:", "> Note:"), [":POSTAMBLE", "note:NOTE_MISSING"]),
    ("quoted within", GOOD.replace(C, "> " + C), ["explanation:WRONG_VALUE", "clinical_relevance:MISSING_SECTION"]),
    ("as inline code", GOOD.replace("**Note**:", "`**Note**:`"), [":POSTAMBLE", "note:NOTE_MISSING"]),
    ("as indented code", GOOD.replace("**Note**", "    **Note**"), [":POSTAMBLE", "note:NOTE_MISSING"]),
    ("in a fence", GOOD.replace(N, f"```\n{N}\n```"), ["clinical_relevance:CODE_FENCE", "note:NOTE_MISSING"]),
    ("in a fence of waves", GOOD.replace(N, f"~~~text\n{N}\n~~~"), ["clinical_relevance:CODE_FENCE", "note:NOTE_MISSING"]),
    ("in a fence in a fence", GOOD.replace(N, f"````\n```\n```\n{N}\n````"), ["clinical_relevance:CODE_FENCE", "note:NOTE_MISSING"]),
    ("behind a fence", GOOD.replace(N, f"```\nx\n```\n\n{N}"), ["clinical_relevance:CODE_FENCE"]),
    ("a body in a fence", GOOD.replace(": Fluid", ":\n```\nFluid").replace("away.", "away.\n```"),
        ["explanation:CODE_FENCE"]),
    ("all in a fence", f"```\n{GOOD}\n```", [":CODE_FENCE"]),
    ("all in a fence that never ends", f"```markdown\n{GOOD}", [":CODE_FENCE"]),
    ("talk around a fence", f"Sure:\n\n```\n{GOOD}\n```\nBye.", [":PREAMBLE", ":CODE_FENCE", ":POSTAMBLE"]),
    ("a broken text in a fence", f"```\n{GOOD.replace(NOTE, 'Ask.')}\n```", [":CODE_FENCE", "note:NOTE_WEAK"]),
    ("a fence that opens at the end", GOOD + "\n```", ["note:CODE_FENCE"]),
    ("bare", GOOD.replace("**", ""), ["definition:HEADING_VARIANT", "explanation:HEADING_VARIANT",
        "clinical_relevance:HEADING_VARIANT", "note:HEADING_VARIANT"]),
    ("the first in another dress after talk", "Sure.\n" + GOOD.replace("**Definition**:", "Definition:"),
        [":PREAMBLE", "definition:HEADING_VARIANT"]),
    ("one in both dresses", GOOD.replace(E, E + "\n\nexplanation: again"),
        ["explanation:DUPLICATE_SECTION"]),
    ("dressed and misplaced", "\n\n".join(["Note: " + NOTE, D, E, C]), ["note:HEADING_VARIANT", ":WRONG_ORDER"]),
    ("dressed and empty", GOOD.replace(E, "## Explanation"), ["explanation:HEADING_VARIANT", "explanation:EMPTY_SECTION"]),
    ("dressed and weak", GOOD.replace(N, "Note: Ask."), ["note:HEADING_VARIANT", "note:NOTE_WEAK"]),
    ("no space after the heading", GOOD.replace("**Note**: ", "**Note**:"), ["note:HEADING_VARIANT"]),
    ("two spaces after it", GOOD.replace("**Note**: ", "**Note**:  "), ["note:HEADING_VARIANT"]),
    ("a line break after it", GOOD.replace("**Note**: ", "**Note**:\n"), ["note:HEADING_VARIANT"]),
    ("one line break between", GOOD.replace("\n\n**Note**", "\n**Note**"), ["note:HEADING_VARIANT"]),
    ("three between", GOOD.replace("\n\n**Note**", "\n\n\n**Note**"), ["note:HEADING_VARIANT"]),
    ("a heading inside a line", GOOD.replace("\n\n**Note**", " **Note**"), ["note:NOTE_MISSING"]),
    ("too short", GOOD.replace(D, "**Definition**: Swelling."), ["definition:TOO_SHORT"]),
    ("too long", GOOD.replace(D, "**Definition**:" + " very" * 61), ["definition:TOO_LONG"]),
    ("two paragraphs", GOOD.replace(E, E + "\n\nMore of it."), ["explanation:WRONG_VALUE"]),
    ("two lines", GOOD.replace(E, E + "\nMore of it."), ["explanation:WRONG_VALUE"]),
    ("a word that begins with a title", GOOD.replace(E, E + "\nNote-taking helps."), ["explanation:WRONG_VALUE"]),
    ("a word that is also a title", GOOD.replace(E, E + "\nNote that more follows."), ["explanation:WRONG_VALUE"]),
    ("two spaces between words", GOOD.replace("Fluid leaves", "Fluid  leaves"), ["explanation:WRONG_VALUE"]),
    ("a tab between words", GOOD.replace("Fluid leaves", "Fluid\tleaves"), ["explanation:WRONG_VALUE"]),
]  # fmt: skip


def classes(contract: Contract, text: str) -> list[str]:
    return [f"{v.section}:{v.cls}" for v in contract.read(text).violations]


@pytest.mark.parametrize(("what", "answer", "expected"), BROKEN, ids=[case[0] for case in BROKEN])
def test_each_broken_answer_gets_its_classes(what: str, answer: str, expected: list[str]) -> None:
    assert classes(load_contract("terminology"), answer) == expected


CARDS = "## Topic of the cardsEdema\n\n## Cards\nQ: What?\nA: Swelling.\nQ: Why?\nA: Fluid."
SOAP_NOTE = "S: Cough.\nO: Well.\nA:\n- Cold\nP:\n- Rest\n- Tea"
STUDY = 'Reasoning: All of them got better.\n\nAnswer: yes\n\nNote: Not "medical advice" \\ ask a doctor.'
# (form, text, replaced, by, violations)
OTHER_KINDS = [
    (FLASHCARDS, CARDS, "", "", []),
    (FLASHCARDS, CARDS, "A: Swelling.\n", "", ["cards:WRONG_VALUE", "cards:WRONG_VALUE", "cards:WRONG_VALUE"]),
    (FLASHCARDS, CARDS, "\nQ: Why?\nA: Fluid.", "", ["cards:TOO_SHORT"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\n", [":POSTAMBLE"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\nThat is all.", [":POSTAMBLE"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\n\n## Sources\nnone", [":EXTRA_SECTION"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\n\n## Sources\nQ: Who?\nA: Me.", [":EXTRA_SECTION"]),
    (FLASHCARDS, CARDS, CARDS[CARDS.index("\n\n") :], "", ["cards:MISSING_SECTION"]),
    (FLASHCARDS, CARDS, "## Cards\n", "## Cards ", ["cards:HEADING_VARIANT"]),
    (FLASHCARDS, CARDS, "## Cards\n", "## Cards\n\n", ["cards:HEADING_VARIANT"]),
    (FLASHCARDS, CARDS, "Q: What?\n", "Q: What? \n", ["cards:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "", "", []),
    (SOAP, SOAP_NOTE, "A:\n- Cold\n", "", ["a:MISSING_SECTION"]),
    (SOAP, SOAP_NOTE, "- Cold", "* Cold", ["a:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "- Cold", "- ", ["a:EMPTY_SECTION"]),
    (SOAP, SOAP_NOTE, "- Cold", "-", ["a:EMPTY_SECTION"]),
    (SOAP, SOAP_NOTE, "- Rest", "- ", ["p:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "- Rest\n", "- Rest\nor\n", ["p:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "- Rest\n", "", ["p:TOO_SHORT"]),
    (SOAP, SOAP_NOTE, "- Tea", "- Tea\n- a\n- b\n- c", ["p:TOO_LONG"]),
    (SOAP, SOAP_NOTE, "- Cold\n", "- Cold\n\n", ["p:HEADING_VARIANT"]),
    (SOAP, SOAP_NOTE, "A:\n", "Allergies: none\nA:\n", [":EXTRA_SECTION"]),
    (SOAP, SOAP_NOTE, "S: Cough.", "Here is your note:\nS: Cough.", [":PREAMBLE"]),
    (SOAP, SOAP_NOTE, "S: Cough.", "Name: Smith\nS: Cough.", [":EXTRA_SECTION"]),
    (SOAP, SOAP_NOTE, "- Cold", "- S: Cold", []),
    (PUBMEDQA, STUDY, "", "", []),
    (PUBMEDQA, STUDY, "Answer: yes", "Answer: Yes", ["answer:WRONG_VALUE"]),
    (PUBMEDQA, STUDY, "Answer: yes", "Answer: yes, it does", ["answer:WRONG_VALUE"]),
    (PUBMEDQA, STUDY, "All of them got better.", "All better.", ["reason:TOO_SHORT"]),
]


@pytest.mark.parametrize(("form", "text", "old", "new", "expected"), OTHER_KINDS, ids=range(len(OTHER_KINDS)))
def test_lists_pairs_and_choices(form: str, text: str, old: str, new: str, expected: list[str]) -> None:
    assert old in text
    assert classes(load_text(form), text.replace(old, new)) == expected


CLASSES = {
    "EMPTY_ANSWER", "PREAMBLE", "POSTAMBLE", "MISSING_SECTION", "WRONG_ORDER", "DUPLICATE_SECTION", "EXTRA_SECTION",
    "EMPTY_SECTION", "HEADING_VARIANT", "CODE_FENCE", "TOO_SHORT", "TOO_LONG", "NOTE_MISSING", "NOTE_WEAK", "WRONG_VALUE",
}  # fmt: skip


def test_the_tables_show_every_class() -> None:
    shown = {item.partition(":")[2] for case in [*BROKEN, *OTHER_KINDS] for item in case[-1]}
    assert shown == CLASSES


SPANS = [
    ("Hello.\n" + GOOD, "PREAMBLE", "Hello.\n"),
    (" " + GOOD + "\nBye.", "POSTAMBLE", "\nBye."),
    (GOOD.replace("**Note**:", "## Note\n"), "HEADING_VARIANT", "## Note"),
    (GOOD.replace("\n\n**Note**", "\n**Note**"), "HEADING_VARIANT", "\n"),
    (GOOD.replace("leaves the", "leaves \t the"), "WRONG_VALUE", "\t "),
    (GOOD.replace("leaves the", "leaves\x00the"), "WRONG_VALUE", "\x00"),
    (GOOD + "\n\n**Sources**: none", "EXTRA_SECTION", "**Sources**: none"),
    (GOOD.replace(E, "**Explanation**:"), "EMPTY_SECTION", "**Explanation**:"),
    (GOOD.replace(NOTE, "Ask."), "NOTE_WEAK", "Ask."),
    ("\n\n".join([D, E, E, C, N]), "DUPLICATE_SECTION", E + "\n\n"),
    ("\n\n".join([D, C, E, N]), "WRONG_ORDER", "**Clinical Relevance**:"),
    (f"```\n{GOOD}\n```", "CODE_FENCE", "```\n"),
]


@pytest.mark.parametrize(("text", "cls", "found"), SPANS, ids=[f"{case[1]} {case[2]!r}" for case in SPANS])
def test_a_violation_marks_its_stretch(text: str, cls: str, found: str) -> None:
    (violation,) = load_contract("terminology").read(text).violations
    assert (violation.cls, violation.found, text[violation.start : violation.end]) == (cls, found, found)


@pytest.mark.parametrize("left", [[E, C, N], [D, C, N], [D, E, C], [N], []], ids=len)
def test_what_is_missing_is_marked_where_it_was_expected(left: list[str]) -> None:
    text = "\n\n".join(left) or "Nothing of it."
    places = {D: 0, E: text.find(C) if D in left else 0, C: text.find(N), N: len(text)}
    missing = [
        v
        for v in load_contract("terminology").read(text).violations
        if v.cls.endswith("_MISSING") or "MISSING_" in v.cls
    ]
    heads = [
        part.partition(" ")[0] if part is not C else "**Clinical Relevance**:"
        for part in (D, E, C, N)
        if part not in left
    ]
    assert [v.found for v in missing] == heads
    assert all(v.start == v.end for v in missing)
    if len(left) == 3:
        assert [v.start for v in missing] == [places[part] for part in (D, E, C, N) if part not in left]
    elif not left:
        assert {v.start for v in missing} == {len(text)}, "with no heading to go by, at the end"
