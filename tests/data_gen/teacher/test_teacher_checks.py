"""What a teacher's answer must hold: each broken rule is refused with its own reason, and sound answers are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contract.contract import Contract
from contract.example import Example
from data_gen.compose.rows import compose
from data_gen.compose.task_data import load_task_data
from data_gen.facts import Fact, read_facts
from data_gen.teacher.checks import REASONS, read_answer, yardstick
from data_gen.teacher.journal import Rejection
from data_gen.teacher.prompt import RULES
from tests.fake_ollama import CONTRACT, make_draft
from tests.strategies import FLASHCARDS, PUBMEDQA, load_text

FACT, DRAFT = make_draft("corneitis", "cornea")
SOUND = {
    "definition": "Corneitis means that the cornea is inflamed for three to 5 days.",
    "explanation": "White cells of 2 kinds go into the cornea and let enzymes out, so that swelling results.",
    "clinical_relevance": "Typical are pain over the cornea and a fever of more than 38.5 degrees, with normal CD4 counts.",
}


def read(**changes: Any) -> Any:
    answer = {key: value for key, value in (SOUND | changes).items() if value is not None}
    return read_answer(CONTRACT, FACT, DRAFT, json.dumps(answer))


def test_a_sound_answer_is_the_whole_record() -> None:
    record = read()
    assert record == SOUND | {"note": DRAFT.record["note"]} and list(record) == list(DRAFT.record)
    reading = CONTRACT.read(CONTRACT.write(record))
    assert reading.adheres and reading.record == record


def test_white_space_says_nothing() -> None:
    text = json.dumps(SOUND, indent=3).replace("the cornea", " the\\n\\tcornea ")
    assert read_answer(CONTRACT, FACT, DRAFT, f" {text}\n") == read()


LONG = " ".join(["swelling"] * 121) + "."
REFUSED = {
    "words missing": ({"definition": "Corneitis is short."}, "FORM", "definition: TOO_SHORT: expected one paragraph of 5 to 60 words, found 3 words"),
    "too many words": ({"explanation": LONG}, "FORM", "explanation: TOO_LONG: expected one paragraph of 10 to 120 words, found 121 words"),
    "empty": ({"definition": " "}, "SCHEMA", "definition: '' should be non-empty"),
    "NUL": ({"definition": "Corneitis is an\0 inflammation of the cornea."}, "FORM", "definition"),
    "broken off": ({"explanation": SOUND["explanation"][:-12]}, "FORM", "ends in the middle of a sentence"),
    "a key missing": ({"definition": None}, "SCHEMA", "'definition' is a required property"),
    "a key too many": ({"note": "x"}, "SCHEMA", "'note' was unexpected"),
    "a list": ({"definition": ["x"]}, "SCHEMA", "definition: ['x'] is not of type 'string'"),
    "bold": ({"definition": "**Corneitis** means that the cornea is inflamed."}, "MARKUP", "not plain text: **"),
    "a heading": ({"definition": "Definition: Corneitis means that the cornea is inflamed."}, "MARKUP", "Definition:"),
    "a heading inside": ({"explanation": SOUND["explanation"] + " Note: be calm."}, "MARKUP", "Note:"),
    "a bullet": ({"explanation": "- " + SOUND["explanation"]}, "MARKUP", "-"),
    "a step": ({"explanation": "2. " + SOUND["explanation"]}, "MARKUP", "2."),
    "HTML": ({"explanation": "<b>" + SOUND["explanation"]}, "MARKUP", "<b>"),
    "a template's mark": ({"explanation": SOUND["explanation"] + " </s>."}, "MARKUP", "</s>"),
    "a zero-width blank": ({"explanation": "\u200b" + SOUND["explanation"]}, "MARKUP", "U+200B"),
    "half of a pair": ({"explanation": "\ud83d" + SOUND["explanation"]}, "MARKUP", "U+D83D"),
    "the instructions": ({"explanation": f"Swelling. {RULES[0]}"}, "COPY", "repeats the instructions"),
    "the facts": (dict(zip(SOUND, FACT.texts.values(), strict=True)), "COPY", "copies the facts word for word"),
    "a sentence twice": ({"explanation": SOUND["definition"] + " The cornea shows swelling."}, "COPY", 'repeats itself: "corneitis means that'),
    "a number": ({"definition": "Corneitis inflames the cornea for 3 to 7 days."}, "NUMBER", "do not hold: 3-7, 7 day"),
    "a percentage": ({"explanation": SOUND["explanation"] + " It hits 20% or 5 percent."}, "NUMBER", "do not hold: 5 %"),
    "a number word": ({"explanation": SOUND["explanation"] + " It has seven stages."}, "NUMBER", "do not hold: 7"),
    "another unit": ({"definition": "Corneitis inflames the cornea for 3 to 5 weeks."}, "NUMBER", "3 week, 5 week"),
    "another name with a digit": ({"explanation": SOUND["explanation"] + " CD8 counts fall."}, "NUMBER", "cd8"),
    "a claim of its own": ({"explanation": SOUND["explanation"] + " This layer supports various body functions like protection."}, "ADDED", 'no fact says "This layer supports various'),
    "a keyword": ({"explanation": SOUND["explanation"].replace("swelling", "edema")}, "KEYWORD", "missing words: swelling"),
    "no name": ({"definition": "It means that the cornea is inflamed for a while."}, "CONCEPT", 'definition does not name "corneitis"'),
    "another's name": ({"definition": "Corneitislike illness means that the cornea is inflamed."}, "CONCEPT", "corneitis"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason", "found"), REFUSED.values(), ids=REFUSED)
def test_refused(changes: dict[str, Any], reason: str, found: str) -> None:
    rejection = read(**changes)
    assert isinstance(rejection, Rejection) and rejection.reason == reason in REASONS, rejection
    assert found in rejection.found.split("; ")[0]
    rejection.found.encode()


@pytest.mark.parametrize("text", ["", "Sure!", '{"definition": "Cor', "[" * 100_000, '{"a": 1} {"b": 2}'])
def test_no_json(text: str) -> None:
    assert read_answer(CONTRACT, FACT, DRAFT, text).reason == "NOT_JSON"


def test_all_faults_are_told_and_the_first_reason_counts() -> None:
    rejection = read(definition="You should rest the eye for 9 days.")
    assert rejection.reason == "NUMBER"
    assert rejection.found == (
        "numbers that the facts do not hold: 9 day; "
        'definition does not name "corneitis"; addresses the reader or advises: You, should'
    )


@pytest.mark.parametrize(
    "phrase",
    [
        "You can feel it.", "Patients should rest.", "Consult your doctor.", "Talk to a health care provider.",
        "Seek immediate medical help.", "Rest is recommended.", "Drops are taken twice a day.", "Do not take aspirin.",
        "The usual adult dose helps.", "Take one tablet.", "Remember to blink.", "It is given every few hours.",
    ],
)  # fmt: skip
def test_advice_is_refused_unless_the_fact_says_it(phrase: str) -> None:
    text = f"{SOUND['clinical_relevance']} {phrase}"
    rejection = read(clinical_relevance=text)
    assert isinstance(rejection, Rejection) and rejection.reason in ("ADVICE", "NUMBER"), rejection
    assert "addresses the reader or advises" in rejection.found
    says_it = Fact(**{**vars(FACT), "texts": FACT.texts | {"clinical": f"{FACT.texts['clinical']} {phrase}"}})
    answer = json.dumps(SOUND | {"clinical_relevance": text})
    assert not isinstance(read_answer(CONTRACT, says_it, DRAFT, answer), Rejection)


@pytest.mark.parametrize(
    "sentence",
    [
        "Muscles take up glucose.", "The cells are seen in every layer.", "One part is cut off first.",
        "The pH stays normal (as a rule).", "Its so-called limbus takes part.", 'It is "dry".', "Dose and duration matter.",
    ],
)  # fmt: skip
def test_ordinary_sentences_are_not_refused(sentence: str) -> None:
    assert not isinstance(read(explanation=f"{SOUND['explanation']} {sentence}"), Rejection)


def test_a_mark_that_the_fact_holds_is_no_markup() -> None:
    held = Fact(**{**vars(FACT), "texts": FACT.texts | {"gene": "HLA-B*27 is common."}})
    answer = SOUND | {"explanation": f"{SOUND['explanation']} HLA-B*27 is a gene."}
    assert not isinstance(read_answer(CONTRACT, held, DRAFT, json.dumps(answer)), Rejection)
    bold = read_answer(CONTRACT, held, DRAFT, json.dumps(answer).replace("gene.", "**gene**."))
    assert (bold.reason, bold.found) == ("MARKUP", "not plain text: **")


def test_a_request_is_not_an_answer() -> None:
    asked = Example(**{**vars(DRAFT), "request": "Tell me all about corneitis in 12 words, please."})
    text = json.dumps(SOUND | {"definition": f"{asked.request[:-1]} and the cornea."})
    rejection = read_answer(CONTRACT, FACT, asked, text)
    assert rejection.reason == "COPY" and "repeats the request" in rejection.found
    assert "numbers" not in rejection.found, "a number of the request is no invention"


def test_every_shipped_row_would_pass_if_it_were_no_copy() -> None:
    contract, data, path = load_task_data("terminology")
    for fact in read_facts(path, data.texts()):
        (draft,) = compose(contract, data, fact, 1, seed=0)
        keywords, named = yardstick(contract, draft)
        assert keywords == list(draft.keywords) and named == contract.sections[0], draft.id
        answer = {name: text for name, text in draft.record.items() if name != "note"}
        answer["definition"] = f"In a word: {answer['definition']}"
        assert read_answer(contract, fact, draft, json.dumps(answer)) == draft.record | answer, draft.id


def own(toml: str, record: dict[str, Any], answer: dict[str, Any], concept: str = "uremia") -> Any:
    contract: Contract = load_text(toml)
    fact = Fact("f", "c", concept, keywords=("urea",), texts={"text": "Uremia is urea in the blood. It harms."})
    row = Example("f/0", concept, "c", f"{concept}?", "", record, contract.write(record), fact.keywords)
    return read_answer(contract, fact, row, json.dumps(answer))


CARDS = [{"Q": "What is in the blood?", "A": "Urea."}, {"Q": "Is it harmful?", "A": "It is."}]


def test_lists_and_pairs_are_held_too() -> None:
    made = {"topic": "Uremia", "cards": [{"Q": "Uremia?", "A": "Urea in blood."}] * 2}
    assert own(FLASHCARDS, made, {"topic": "Uremia briefly", "cards": CARDS}) == {
        "topic": "Uremia briefly",
        "cards": CARDS,
    }
    few = own(FLASHCARDS, made, {"topic": "Uremia briefly", "cards": CARDS[:1]})
    assert few.reason == "SCHEMA" and "too short" in few.found
    marked = own(FLASHCARDS, made, {"topic": "Uremia briefly", "cards": [CARDS[0], {"Q": "- How?", "A": "Urea."}]})
    assert marked.reason == "MARKUP"
    off = own(FLASHCARDS, made, {"topic": "Briefly", "cards": CARDS})
    assert off.reason == "CONCEPT"


def test_a_choice_is_composed_not_asked_and_the_row_is_the_yardstick() -> None:
    note = load_text(PUBMEDQA).sections[-1].kind.text  # type: ignore[union-attr]
    made = {"reason": "Waste stays in the blood.", "answer": "yes", "note": note}
    answer = {"reason": "The blood keeps its waste."}
    assert own(PUBMEDQA, made, answer) == made | answer, "neither name nor keyword is in the composed row"
    assert own(PUBMEDQA, made, answer | {"answer": "no"}).reason == "SCHEMA"
