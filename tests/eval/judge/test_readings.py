"""Loose and lenient: what each forgives, what none forgives, and that strict passes loose and loose passes lenient."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contract import Contract, Record, load_contract
from contract.example import Example
from eval.judge.readings import lenient_forms, loose_forms, undress
from eval.judge.verdict import Verdict, judge
from eval.selftest.clean_examples import generated_example
from eval.selftest.mutations import mutants
from models.answers import REPEATED, Answer
from tests.eval.judge.test_verdict import CLEAN, CONTRACT, EXAMPLE, NOTE, RECORD
from tests.strategies import FLASHCARDS, FORMS, PUBMEDQA, SOAP, contracts, load_text, words, written

E = RECORD["explanation"]
READINGS = {
    "strict": (True, True, True),
    "loose": (False, True, True),
    "lenient": (False, False, True),
    "none": (False,) * 3,
}

# (what is wrong, the answer, the first reading that lets it pass)
FORGIVEN = {
    "nothing": (CLEAN, "strict"),
    "the wire's space": (" " + CLEAN, "strict"),
    "two spaces before": ("  " + CLEAN, "loose"),
    "empty lines around": (f"\n\n{CLEAN}\n", "loose"),
    "a first line": (f"Sure, here it is:\n{CLEAN}", "loose"),
    "a first line and an empty one": (f"Sure, here it is:\n\n{CLEAN}", "loose"),
    "a last line": (f"{CLEAN}\n\nI hope this helps!", "loose"),
    "first and last line": (f"Sure!\n\n{CLEAN}\n\nBye.", "loose"),
    "a fence": (f"```\n{CLEAN}\n```", "loose"),
    "a fence with a name": (f"```markdown\n{CLEAN}\n```\n", "loose"),
    "a fence that never ends": (f"~~~\n{CLEAN}", "loose"),
    "talk and a fence": (f"Sure:\n```\n{CLEAN}\n```\nBye.", "loose"),
    "a leak in a last line": (f"{CLEAN}\n</s>", "loose"),
    "two first lines": (f"Sure!\nHere it is:\n{CLEAN}", "none"),
    "two last lines": (f"{CLEAN}\nBye.\nSee you.", "none"),
    "other marks": (CLEAN.replace("**Note**: ", "## Note\n"), "lenient"),
    "all on lines of their own": (CLEAN.replace("**: ", "**\n\n"), "lenient"),
    "the colon inside": (CLEAN.replace("**:", ":**"), "lenient"),
    "no stars": (CLEAN.replace("**", ""), "lenient"),
    "capitals": (CLEAN.replace("Clinical Relevance", "CLINICAL RELEVANCE"), "lenient"),
    "numbers": (CLEAN.replace("**Explanation**:", "2. **Explanation**:"), "lenient"),
    "underscores": (CLEAN.replace("**Clinical Relevance**", "__clinical_relevance__"), "lenient"),
    "white space about a heading": (CLEAN.replace("\n\n**Note**: ", "\n**Note**:  "), "lenient"),
    "other marks and talk": (f"Sure!\n{CLEAN.replace('**Note**: ', '### Note: ')}\nBye.", "lenient"),
    "other marks in a fence": (f"```\n{CLEAN.replace('**', '')}\n```", "lenient"),
    "a section left out": (CLEAN.replace(f"**Explanation**: {E}\n\n", ""), "none"),
    "an empty section": (CLEAN.replace(E, ""), "none"),
    "a slot": (CLEAN.replace(E, "[insert explanation]"), "none"),
    "a refusal": (CLEAN.replace(E, "I'm sorry, but I cannot help with that, as it is far beyond me."), "none"),
    "a weak note": (CLEAN.replace(NOTE, "Ask a doctor."), "none"),
    "another order": (CLEAN.replace("**Definition**", "**Note**", 1), "none"),
    "a heading twice": (f"{CLEAN}\n\nNote: {NOTE}\n\nNote: {NOTE}", "none"),
    "a quoted heading": (CLEAN.replace("**Note**", "> **Note**"), "none"),
    "a heading in a fence": (CLEAN.replace(f"**Note**: {NOTE}", f"```\n**Note**: {NOTE}\n```"), "none"),
    "two paragraphs": (CLEAN.replace("urea,", "urea,\n\nand"), "none"),
    "JSON": ('{\n  "definition": "Uremia is a build-up of urea.",\n  "note": "Ask."\n}', "none"),
    "nothing at all": ("", "none"),
}  # fmt: skip


def passes(verdict: Verdict) -> tuple[bool, bool, bool]:
    return verdict.strict, verdict.loose, verdict.lenient


@pytest.mark.parametrize(("text", "reading"), FORGIVEN.values(), ids=FORGIVEN)
def test_each_reading_forgives_its_own(text: str, reading: str) -> None:
    assert passes(judge(CONTRACT, EXAMPLE, Answer(text))) == READINGS[reading]


@pytest.mark.parametrize("reason", ["length", REPEATED])
@pytest.mark.parametrize("text", [CLEAN, f"Sure!\n{CLEAN}", CLEAN.replace("**", "")], ids=["clean", "talk", "bare"])
def test_no_reading_forgives_an_answer_that_was_broken_off(text: str, reason: str) -> None:
    assert passes(judge(CONTRACT, EXAMPLE, Answer(text, reason))) == READINGS["none"]


SOAP_NOTE = "S: Cough.\nO: Well.\nA:\n- Cold\nP:\n- Rest\n- Tea"
CARDS = "## Topic of the cardsEdema\n\n## Cards\nQ: What?\nA: Swelling.\nQ: Why?\nA: Fluid."
STUDY = 'Reasoning: All of them got better.\n\nAnswer: yes\n\nNote: Not "medical advice" \\ ask a doctor.'
OTHERS = [
    (SOAP, SOAP_NOTE, "strict"),
    (SOAP, SOAP_NOTE.replace("S:", "**S:**").replace("O:", "**O:**"), "loose"),  # no heading of its own holds a star
    (SOAP, SOAP_NOTE.replace("\n", "\n\n").replace("- Rest\n\n", "- Rest\n"), "lenient"),
    (SOAP, SOAP_NOTE.replace("A:\n", "## A\n").replace("P:\n", "## p:\n\n"), "lenient"),
    (SOAP, SOAP_NOTE.replace("- Cold", "* Cold"), "none"),
    (FLASHCARDS, CARDS, "strict"),
    (FLASHCARDS, CARDS.replace("## Cards", "**Cards:**"), "lenient"),
    (FLASHCARDS, CARDS.replace("A: Fluid.", "Fluid."), "none"),
    (PUBMEDQA, STUDY, "strict"),
    (PUBMEDQA, STUDY.replace("Answer:", "ANSWER -"), "lenient"),
    (PUBMEDQA, STUDY.replace("yes", "Yes"), "none"),
]


@pytest.mark.parametrize(("form", "text", "reading"), OTHERS, ids=range(len(OTHERS)))
def test_other_forms(form: str, text: str, reading: str) -> None:
    contract = load_text(form)
    assert passes(judge(contract, _example(contract.read(text).record), Answer(text))) == READINGS[reading]


def _example(record: Record) -> Example:
    return Example("x/0", "edema", "terms", "What?", "", record, "", ())


def _check_order(contract: Contract, text: str, reason: str = "stop") -> None:
    strict, loose, lenient = passes(judge(contract, _example({}), Answer(text, reason)))
    assert strict <= loose <= lenient


@given(st.data())
@settings(max_examples=300)
def test_strict_passes_loose_and_loose_passes_lenient(data: st.DataObject) -> None:
    contract, _, text = data.draw(written())
    dressed = [f"## {s.title}\n" for s in contract.sections] + [f"**{s.title.upper()}:** " for s in contract.sections]
    heads = [contract.head(s) + contract.gap(s) for s in contract.sections]
    bits = (
        st.sampled_from(
            [*heads, *dressed, "Sure!\n", "\nBye.", "```\n", "\n```", "\n", "\n\n", " ", "> ", "- ", "*", "</s>"]
        )
        | words
    )
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.sampled_from([0, len(text)]) | st.integers(0, len(text)))
        gone = data.draw(st.sampled_from([0, 0, 1, 5]))
        text = text[:place] + data.draw(bits) + text[place + gone :]
    _check_order(contract, text, data.draw(st.sampled_from(["stop", "stop", "length", REPEATED])))


@given(contracts, st.text())
def test_any_text_keeps_the_order(contract: Contract, text: str) -> None:
    _check_order(contract, text)


@given(contracts, st.integers(0, 5))
@settings(max_examples=20)
def test_every_mutant_keeps_the_order(contract: Contract, number: int) -> None:
    example = generated_example(contract, number)
    for mutant in mutants(contract, example):
        strict, loose, lenient = passes(judge(contract, example, mutant.answer))
        assert strict <= loose <= lenient


@given(written())
def test_undressing_leaves_a_clean_text_as_it_is(case: Any) -> None:
    contract, _, text = case
    assert undress(contract, text) == text
    assert text in set(loose_forms(contract, text)) and text in set(lenient_forms(contract, text))


@given(st.data())
def test_a_loose_form_that_is_clean_is_a_lenient_form_too(data: st.DataObject) -> None:
    contract, _, text = data.draw(written())
    text = (
        data.draw(st.sampled_from(["Sure!\n", "```\n", " \n", ""]))
        + text
        + data.draw(st.sampled_from(["\nBye.", "\n```", "\n", ""]))
    )
    clean = {form for form in loose_forms(contract, text) if contract.read(form).adheres}
    assert clean and clean <= set(lenient_forms(contract, text))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_dress_of_every_heading_is_undressed(form: Contract) -> None:
    example = generated_example(form, 3)
    for section in form.sections:
        if form.heading.endswith("{title}"):  # its heading is a dress
            continue
        own = form.head(section) + form.gap(section)
        for dress in ("## {}\n", "**{}:** ", "### 2. {}:\n\n", "{}\n", "__{}__: ", "[{}] - ", "• {}: "):
            text = example.response.replace(own, dress.format(section.title), 1)
            assert undress(form, text) == example.response, (dress, section.title)


def test_a_text_too_long_to_be_an_answer_is_forgiven_nothing() -> None:
    contract = load_contract("terminology")
    text = "Sure!\n" + CLEAN.replace("urea,", "".join(map(str, range(15_000))))
    assert passes(judge(contract, EXAMPLE, Answer(text))) == READINGS["none"]
