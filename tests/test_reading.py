"""Strict reading: which class each broken answer gets, exotic line breaks, and that no fault slips through."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contract import Contract, load_contract
from contract.reading import read_strictly
from tests.strategies import FLASHCARDS, PUBMEDQA, SOAP, contracts, load_text, words, written

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
    ("talk after", GOOD + "\n\nI hope this helps!", ["note:POSTAMBLE"]),
    ("a line break after", GOOD + "\n", ["note:POSTAMBLE"]),
    ("a space after", GOOD + " ", ["note:NOTE_WEAK"]),
    ("a section left out", "\n\n".join([D, C, N]), ["explanation:MISSING_SECTION"]),
    ("the first left out", "\n\n".join([E, C, N]), ["definition:MISSING_SECTION"]),
    ("the note left out", "\n\n".join([D, E, C]), ["note:NOTE_MISSING"]),
    ("the note weakened", GOOD.replace("Always consult", "Consult"), ["note:NOTE_WEAK"]),
    ("the note cut", GOOD[:-20], ["note:NOTE_WEAK"]),
    ("two swapped", "\n\n".join([D, C, E, N]), [":WRONG_ORDER"]),
    ("one twice", "\n\n".join([D, E, E, C, N]), ["explanation:DUPLICATE_SECTION"]),
    ("one again at the end", "\n\n".join([D, E, C, N, D]), ["definition:DUPLICATE_SECTION"]),
    ("one nobody asked for", "\n\n".join([D, E, "**Treatment**: Lift them.", C, N]), ["explanation:EXTRA_SECTION"]),
    ("one more at the end", GOOD + "\n\n**Sources**: none", ["note:EXTRA_SECTION"]),
    ("one more and talk", GOOD + "\n\n**Sources**: none\n\nBye.", ["note:EXTRA_SECTION"]),
    ("one more at the start", "**Term**: Edema\n\n" + GOOD, [":PREAMBLE"]),
    ("one empty", "\n\n".join([D, "**Explanation**: ", C, N]), ["explanation:EMPTY_SECTION"]),
    ("one empty, no space", "\n\n".join([D, "**Explanation**:", C, N]), ["explanation:EMPTY_SECTION"]),
    ("the last one empty", "\n\n".join([D, E, C, "**Note**:"]), ["note:EMPTY_SECTION"]),
    ("another mark", GOOD.replace("**Explanation**:", "## Explanation\n"), ["explanation:HEADING_VARIANT"]),
    ("colon inside", GOOD.replace("**Explanation**:", "**Explanation:**"), ["explanation:HEADING_VARIANT"]),
    ("other case", GOOD.replace("**Clinical Relevance**", "**CLINICAL relevance**"),
        ["clinical_relevance:HEADING_VARIANT"]),
    ("numbered", GOOD.replace("**Note**", "4. **Note**"), ["note:HEADING_VARIANT"]),
    ("indented", GOOD.replace("**Note**", "  **Note**"), ["note:HEADING_VARIANT"]),
    ("quoted", GOOD.replace("**Note**", "> **Note**"), ["note:HEADING_VARIANT"]),
    ("bare", GOOD.replace("**", ""), ["definition:HEADING_VARIANT", "explanation:HEADING_VARIANT",
        "clinical_relevance:HEADING_VARIANT", "note:HEADING_VARIANT"]),
    ("the first in another dress after talk", "Sure.\n" + GOOD.replace("**Definition**:", "Definition:"),
        [":PREAMBLE", "definition:HEADING_VARIANT"]),
    ("one in both dresses", GOOD.replace(E, E + "\n\nexplanation: again"), ["explanation:HEADING_VARIANT"]),
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
    ("a word that is also a title", GOOD.replace(E, E + "\nNote that more follows."), ["explanation:WRONG_VALUE"]),
    ("two spaces between words", GOOD.replace("Fluid leaves", "Fluid  leaves"), ["explanation:WRONG_VALUE"]),
    ("a tab between words", GOOD.replace("Fluid leaves", "Fluid\tleaves"), ["explanation:WRONG_VALUE"]),
]  # fmt: skip


def classes(contract: Contract, text: str) -> list[str]:
    return [f"{v.section}:{v.cls}" for v in contract.read(text).violations]


@pytest.mark.parametrize(("what", "answer", "wanted"), BROKEN, ids=[case[0] for case in BROKEN])
def test_each_broken_answer_gets_its_classes(what: str, answer: str, wanted: list[str]) -> None:
    assert classes(load_contract("terminology"), answer) == wanted


CARDS = "## Topic of the cardsEdema\n\n## Cards\nQ: What?\nA: Swelling.\nQ: Why?\nA: Fluid."
SOAP_NOTE = "S: Cough.\nO: Well.\nA:\n- Cold\nP:\n- Rest\n- Tea"
STUDY = 'Reasoning: All of them got better.\n\nAnswer: yes\n\nNote: Not "medical advice" \\ ask a doctor.'
# (form, text, replaced, by, violations)
OTHER_KINDS = [
    (FLASHCARDS, CARDS, "", "", []),
    (FLASHCARDS, CARDS, "A: Swelling.\n", "", ["cards:WRONG_VALUE", "cards:WRONG_VALUE", "cards:WRONG_VALUE"]),
    (FLASHCARDS, CARDS, "\nQ: Why?\nA: Fluid.", "", ["cards:TOO_SHORT"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\n", ["cards:POSTAMBLE"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\nThat is all.", ["cards:POSTAMBLE"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\n\n## Sources\nnone", ["cards:EXTRA_SECTION"]),
    (FLASHCARDS, CARDS, "A: Fluid.", "A: Fluid.\n\n## Sources\nQ: Who?\nA: Me.", ["cards:EXTRA_SECTION"]),
    (FLASHCARDS, CARDS, CARDS[CARDS.index("\n\n") :], "", ["cards:MISSING_SECTION"]),
    (FLASHCARDS, CARDS, "## Cards\n", "## Cards ", ["cards:HEADING_VARIANT"]),
    (FLASHCARDS, CARDS, "## Cards\n", "## Cards\n\n", ["cards:HEADING_VARIANT"]),
    (FLASHCARDS, CARDS, "Q: What?\n", "Q: What? \n", ["cards:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "", "", []),
    (SOAP, SOAP_NOTE, "A:\n- Cold\n", "", ["a:MISSING_SECTION"]),
    (SOAP, SOAP_NOTE, "- Cold", "* Cold", ["a:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "- Cold", "- ", ["a:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "- Rest\n", "- Rest\nor\n", ["p:WRONG_VALUE"]),
    (SOAP, SOAP_NOTE, "- Rest\n", "", ["p:TOO_SHORT"]),
    (SOAP, SOAP_NOTE, "- Tea", "- Tea\n- a\n- b\n- c", ["p:TOO_LONG"]),
    (SOAP, SOAP_NOTE, "- Cold\n", "- Cold\n\n", ["p:HEADING_VARIANT"]),
    (SOAP, SOAP_NOTE, "A:\n", "Allergies: none\nA:\n", ["o:EXTRA_SECTION"]),
    (PUBMEDQA, STUDY, "", "", []),
    (PUBMEDQA, STUDY, "Answer: yes", "Answer: Yes", ["answer:WRONG_VALUE"]),
    (PUBMEDQA, STUDY, "Answer: yes", "Answer: yes, it does", ["answer:WRONG_VALUE"]),
    (PUBMEDQA, STUDY, "All of them got better.", "All better.", ["reason:TOO_SHORT"]),
]


@pytest.mark.parametrize(("form", "text", "old", "new", "wanted"), OTHER_KINDS, ids=range(len(OTHER_KINDS)))
def test_lists_pairs_and_choices(form: str, text: str, old: str, new: str, wanted: list[str]) -> None:
    assert old in text
    assert classes(load_text(form), text.replace(old, new)) == wanted


EXOTIC = ["\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize("line_break", EXOTIC, ids=ascii)
def test_only_a_line_feed_begins_a_line(line_break: str) -> None:
    contract = load_contract("terminology")
    inside = GOOD.replace("\n\n**Note**", f"{line_break * 2}**Note**")
    assert "note:NOTE_MISSING" in classes(contract, inside)
    assert "clinical_relevance:WRONG_VALUE" in classes(contract, inside)
    assert classes(contract, GOOD.replace("Fluid leaves", f"Fluid{line_break}leaves")) == ["explanation:WRONG_VALUE"]


def test_windows_line_ends_are_a_fault_and_no_heading_is_lost() -> None:
    reading = load_contract("terminology").read(GOOD.replace("\n", "\r\n"))
    assert list(reading.record) == ["definition", "explanation", "clinical_relevance", "note"]
    assert not reading.adheres and "MISSING_SECTION" not in {v.cls for v in reading.violations}


def test_a_broken_answer_still_yields_what_can_be_read() -> None:
    reading = load_contract("terminology").read("\n\n".join(["Sure.", D, C, E + "\nAnd more."]))
    assert reading.record["definition"] == D.partition(": ")[2]
    assert reading.record["explanation"] == E.partition(": ")[2]
    assert "note" not in reading.record
    twice = "\n\n".join([D, E, C, N, "**Definition**: Another text about something else."])
    assert load_contract("terminology").read(twice).record["definition"] == D.partition(": ")[2]


def test_each_violation_shows_where() -> None:
    found = {v.cls: v.found for v in load_contract("terminology").read("Hello.\n" + GOOD + "\nBye.").violations}
    assert found == {"PREAMBLE": "Hello.\n", "POSTAMBLE": "\nBye."}


@given(st.data())
@settings(max_examples=400)
def test_whatever_happens_to_a_text_a_clean_reading_is_the_text_itself(data: st.DataObject) -> None:
    contract, _, text = data.draw(written())
    heads = [contract.head(s) + contract.gap(s) for s in contract.sections]
    bits = (
        st.sampled_from([*heads, *EXOTIC, " ", "  ", "\n", "\n\n", "\r\n", "- ", "Q: ", "Frage: ", "\ufeff", "1. "])
        | words
    )
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + data.draw(st.sampled_from([0, 1, 3, 40])))))
        text = text[:start] + data.draw(bits | st.just(text[end : end + 30])) + text[end:]
    _check_clean_means_equal(contract, text)


@given(contracts, st.text())
def test_any_text_can_be_read(contract: Contract, text: str) -> None:
    _check_clean_means_equal(contract, text)


def _check_clean_means_equal(contract: Contract, text: str) -> None:
    reading = contract.read(text)
    if reading.adheres:
        assert contract.write(reading.record) == text.removeprefix(" ")
    for violation in reading.violations:
        assert violation.section in {"", *(s.name for s in contract.sections)} and violation.cls in CLASSES


CLASSES = {
    "EMPTY_ANSWER", "PREAMBLE", "POSTAMBLE", "MISSING_SECTION", "WRONG_ORDER", "DUPLICATE_SECTION", "EXTRA_SECTION",
    "EMPTY_SECTION", "HEADING_VARIANT", "TOO_SHORT", "TOO_LONG", "NOTE_MISSING", "NOTE_WEAK", "WRONG_VALUE",
}  # fmt: skip


def test_the_tables_show_every_class() -> None:
    shown = {item.partition(":")[2] for case in [*BROKEN, *OTHER_KINDS] for item in case[-1]}
    assert shown == CLASSES


JUNK: dict[str, Any] = {
    "stars": "*",
    "star lines": "**\n",
    "line breaks": "\n",
    "spaces": " ",
    "headings": "**Definition**: x\n\n",
    "headings in a row": "**Definition**:",
    "variants": "## Definition:\n",
    "titles and spaces": "\nDefinition          ",
    "foreign headings": "**Foo**: x\n",
    "nearly foreign headings": "**" + "a " * 30 + "\n",
    "words": "word ",
    "marks": "- a\n",
    "line separators": "\u2028",
}


@pytest.mark.parametrize("form", ["terminology", "soap"])
@pytest.mark.parametrize("junk", JUNK)
def test_a_megabyte_of_junk_is_read_in_linear_time(form: str, junk: str) -> None:
    contract = load_contract("terminology") if form == "terminology" else load_text(SOAP)
    text = "S: x\n" + D + "\n\n" + JUNK[junk] * (1_000_000 // len(JUNK[junk]))
    started = time.process_time()
    assert read_strictly(contract, text).violations
    assert time.process_time() - started < 2  # measured 0.01 to 0.5; anything quadratic takes minutes
