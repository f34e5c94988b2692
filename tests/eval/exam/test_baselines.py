from collections import Counter

from hypothesis import given

from contract.contract import Contract, Record, load_contract
from contract.example import Example
from contract.kinds import Choice
from eval.exam.baselines import baselines
from tests.strategies import FLASHCARDS, PUBMEDQA, SOAP, contracts, load_text, written

CONTRACT = load_contract("terminology")
DECISION = load_text(PUBMEDQA)


def example(concept: str, request: str = "What is it?", record: Record | None = None, response: str = "-") -> Example:
    return Example(f"{concept}/0", concept, "signs", request, "", record or {}, response, ())


def decision(answer: str) -> Example:
    return example("trial", record={"reason": "It did so.", "answer": answer, "note": "n"})


@given(contracts)
def test_empty_sections_keep_every_form(contract: Contract) -> None:
    texts = baselines(contract, [example("a", record={s.name: "no" for s in contract.sections})])["empty sections"]
    reading = contract.read(texts[0])
    assert reading.violations == ()
    assert set(reading.record) == {section.name for section in contract.sections}


def test_empty_sections_are_as_short_as_the_form_lets_them() -> None:
    (text,) = baselines(CONTRACT, [example("uremia")])["empty sections"]
    record = CONTRACT.read(text).record
    assert [len(record[name].split()) for name in ("definition", "explanation", "clinical_relevance")] == [5, 10, 10]
    assert len(set(record.values())) == 4, "no section repeats another"
    soap = load_text(SOAP).read(baselines(load_text(SOAP), [example("a")])["empty sections"][0]).record
    assert len(soap["p"]) == len(set(soap["p"])) == 2
    cards = load_text(FLASHCARDS).read(baselines(load_text(FLASHCARDS), [example("a")])["empty sections"][0]).record
    told = [text for card in cards["cards"] for text in card.values()]
    assert len(told) == len(set(told)) == 4


def test_a_copy_says_the_request_in_every_section() -> None:
    asked = "What is\nuremia,  and why   does it matter to a nurse?"
    (text,) = baselines(CONTRACT, [example("uremia", asked)])["copy of the request"]
    reading = CONTRACT.read(text)
    assert reading.violations == ()
    line = "What is uremia, and why does it matter to a nurse?"
    assert [reading.record[name] for name in ("definition", "explanation", "clinical_relevance")] == [line] * 3
    (short,) = baselines(CONTRACT, [example("uremia", "uremia")])["copy of the request"]
    assert {v.cls for v in CONTRACT.read(short).violations} == {"TOO_SHORT"}, "a short request is not drawn out"


def test_a_copy_fills_lists_and_pairs() -> None:
    (soap,) = baselines(load_text(SOAP), [example("a", "Ask.")])["copy of the request"]
    assert load_text(SOAP).read(soap).record == {"s": "Ask.", "o": "Ask.", "a": ["Ask."], "p": ["Ask.", "Ask."]}
    (cards,) = baselines(load_text(FLASHCARDS), [example("a", "Ask.")])["copy of the request"]
    assert load_text(FLASHCARDS).read(cards).record["cards"] == [{"Q": "Ask.", "A": "Ask."}] * 2


def test_the_majority_class_is_the_most_common_option() -> None:
    votes = [decision(answer) for answer in ("no", "maybe", "no", "yes")]
    texts = baselines(DECISION, votes)["majority class"]
    assert len(texts) == 4 and {DECISION.read(text).record["answer"] for text in texts} == {"no"}
    assert all(not DECISION.read(text).violations for text in texts)
    tied = baselines(DECISION, [decision("maybe"), decision("no")])["majority class"]
    assert DECISION.read(tied[0]).record["answer"] == "no", "of equals the one that the contract names first"
    assert "majority class" not in baselines(CONTRACT, [example("a")])


def test_another_concept_answers_for_the_next() -> None:
    rows = [example(name, response=f"{name}{i}") for i, name in enumerate("aabbc")]
    assert baselines(CONTRACT, rows)["another concept"] == ["b2", "b2", "c4", "c4", "a0"]
    around = [example(name, response=f"{name}{i}") for i, name in enumerate("aba")]
    assert baselines(CONTRACT, around)["another concept"] == ["b1", "a2", "b1"]
    assert "another concept" not in baselines(CONTRACT, rows[:2]), "there is no other concept"


@given(written())
def test_every_model_answers_every_example(drawn: tuple[Contract, Record, str]) -> None:
    contract, record, text = drawn
    rows = [example(name, record=record, response=text) for name in "aab"]
    found = baselines(contract, rows)
    assert {len(texts) for texts in found.values()} == {3}
    choices = [s.name for s in contract.sections if isinstance(s.kind, Choice)]
    for name in choices:
        assert contract.read(found["majority class"][0]).record[name] == record[name]
    assert Counter(found["another concept"]) == {text: 3}
