"""Strict reading: clean means equal to what is written, whatever happened to a text; exotic line breaks; any length."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contract import Contract, Record, load_contract
from tests.contract.test_diagnosis import CLASSES, GOOD, NOTE, C, D, E, N, classes
from tests.strategies import SOAP, contracts, load_text, words, written

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


@given(st.data())
@settings(max_examples=400)
def test_whatever_happens_to_a_text_a_clean_reading_is_the_text_itself(data: st.DataObject) -> None:
    contract, _, text = data.draw(written())
    heads = [contract.head(s) + contract.gap(s) for s in contract.sections]
    bits = (
        st.sampled_from(
            [
                *heads,
                *EXOTIC,
                " ",
                "  ",
                "\n",
                "\n\n",
                "\r\n",
                "- ",
                "Q: ",
                "Frage: ",
                "\ufeff",
                "1. ",
                "```\n",
                "\n```\n",
                "\n> ",
                "~~~~",
                "## ",
                "**",
            ]
        )
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
    else:
        assert not _is_written(contract, reading.record, text)
    for violation in reading.violations:
        assert violation.section in {"", *(s.name for s in contract.sections)} and violation.cls in CLASSES
        assert text[violation.start : violation.end] in (violation.found, "") and 0 <= violation.start <= len(text)
        assert (violation.start < violation.end or violation.cls in MISSING) and (violation.found or not text)
    assert [v.start for v in reading.violations] == sorted(v.start for v in reading.violations)
    for name, (start, end) in reading.spans.items():
        assert 0 <= start <= end <= len(text) and name in reading.record


def _is_written(contract: Contract, record: Record, text: str) -> bool:
    try:
        return contract.write(record) == text.removeprefix(" ")
    except ValueError:
        return False


MISSING = {"MISSING_SECTION", "NOTE_MISSING", "EMPTY_ANSWER"}


def test_a_long_text_is_read_to_its_end() -> None:
    contract = load_contract("terminology")
    long = GOOD.replace("Fluid leaves", f"Fl{'u' * 100_000}id leaves")
    assert contract.read(long).adheres and contract.read(" " + long).adheres, "the bounds count words, however long"
    (violation,) = contract.read(long + "\nBye.").violations
    assert (violation.cls, violation.found, violation.start) == ("POSTAMBLE", "\nBye.", len(long))


def test_the_body_of_each_section_is_told() -> None:
    text = " Sure.\n" + GOOD.replace("**Note**: ", "## Note\n\n")
    reading = load_contract("terminology").read(text)
    bodies = {name: text[start:end] for name, (start, end) in reading.spans.items()}
    assert bodies == reading.record and bodies["note"] == NOTE


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
def test_a_megabyte_of_junk_is_read_to_its_end(form: str, junk: str) -> None:
    contract = load_contract("terminology") if form == "terminology" else load_text(SOAP)
    text = "S: x\n" + D + "\n\n" + JUNK[junk] * (1_000_000 // len(JUNK[junk]))
    assert contract.read(text).violations
