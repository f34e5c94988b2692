"""The leak certificate: the shipped dataset is clean, every planted leak is found and named, templates are no leak."""

from __future__ import annotations

import json
import random
import re

import pytest

from contract.example import SPLITS, Example
from data_gen.compose.dataset import concept_groups, make_dataset
from data_gen.compose.split import split
from data_gen.compose.task_data import load_task_data
from data_gen.facts import read_facts
from data_gen.leaks.certificate import Certificate, check
from data_gen.leaks.certification import LONG_REQUESTS, REQUESTS, RESPONSES, certify
from plumbing.errors import UserError
from tests import planted_leaks
from tests.planted_leaks import PLANTS, Concepts, Plant, Rows, put


@pytest.fixture(scope="module")
def shipped() -> tuple[Rows, Concepts]:
    contract, data, facts = load_task_data("terminology")
    sides = split(read_facts(facts, data.texts()), 12)
    dataset = make_dataset(contract, data, sides, None, 12)
    return {name: list(rows) for name, rows in dataset.items()}, concept_groups(sides)


@pytest.fixture(scope="module")
def certificate(shipped: tuple[Rows, Concepts]) -> Certificate:
    return certify(*shipped)


@pytest.fixture
def rows(shipped: tuple[Rows, Concepts]) -> Rows:
    return {name: list(rows) for name, rows in shipped[0].items()}


@pytest.fixture
def concepts(shipped: tuple[Rows, Concepts]) -> Concepts:
    return json.loads(json.dumps(shipped[1]))


def test_the_shipped_dataset_is_clean(shipped: tuple[Rows, Concepts], certificate: Certificate) -> None:
    assert certificate.clean and all(one.found == 0 and one.leaks == () for one in certificate.checks)
    check(certificate)
    compared = {one.name: one.compared for one in certificate.checks}
    total = sum(map(len, shipped[0].values()))
    assert certificate.rows == compared["concepts"] == compared["same requests"] == total == 4 * certificate.concepts
    assert certificate.names == compared["names"] == sum(len(g["names"]) for gs in shipped[1].values() for g in gs)
    assert compared["near responses"] > certificate.concepts <= compared["near requests"]


def test_the_closest_pair_is_always_shown(shipped: tuple[Rows, Concepts], certificate: Certificate) -> None:
    held = {row.id: (name, row) for name, rows in shipped[0].items() for row in rows}
    closest = {one.name: one.closest for one in certificate.checks if one.closest}
    assert set(closest) == {"near requests", "near responses"}
    for name, field in (("near requests", "request"), ("near responses", "response")):
        first, second = closest[name].rows
        assert first.split != second.split
        for shown in (first, second):
            there, row = held[shown.id]
            text = " ".join(getattr(row, field).split())
            assert shown.split == there and text.startswith(shown.text.removesuffix("...")) and shown.text
    assert closest["near responses"].counts and 0 < closest["near responses"].similarity < RESPONSES.limit
    assert not closest["near requests"].counts
    line = certificate.line()
    assert line.startswith(f"leak certificate: clean: {certificate.concepts} concepts' ") and "\n" not in line
    assert f"closest responses {closest['near responses'].similarity:.2f} (limit {RESPONSES.limit}): rows '" in line
    assert all(row.id in line for pair in closest.values() for row in pair.rows)


def test_the_json_says_all_of_it(certificate: Certificate) -> None:
    read = json.loads(certificate.to_json())
    assert read["clean"] is True and [one["name"] for one in read["checks"]] == [one.name for one in certificate.checks]
    measures = {one["name"]: one["measure"] for one in read["checks"] if one["measure"]}
    assert {name: measure["limit"] for name, measure in measures.items()} == {
        "near requests": REQUESTS.limit, "near long requests": LONG_REQUESTS.limit, "near responses": RESPONSES.limit,
    }  # fmt: skip
    assert certificate.to_json().endswith("}\n")


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_leak_is_found_and_its_rows_are_named(plant: Plant, rows: Rows, concepts: Concepts) -> None:
    name, ids = plant(rows, concepts)
    certificate = certify(rows, concepts)
    leaks = next(one for one in certificate.checks if one.name == name).leaks
    named = [{row.id for row in leak.rows} for leak in leaks]
    assert not certificate.clean and any(set(ids) <= those for those in named), named
    with pytest.raises(UserError) as error:
        check(certificate)
    assert ids[0] in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("leak certificate: ") and " leak" in str(error.value)
    assert json.loads(certificate.to_json())["clean"] is False


def test_leaks_that_are_not_listed_are_counted(rows: Rows, concepts: Concepts) -> None:
    for number in range(150):
        put(rows, "test", number, request=rows["train"][number].request, response=rows["train"][number].response)
    certificate = certify(rows, concepts)
    same = {one.name: one for one in certificate.checks}["same requests"]
    assert same.found == 150 and len(same.leaks) == 100
    total = sum(one.found for one in certificate.checks)
    shown = sum(min(one.found, 3) for one in certificate.checks)
    assert certificate.line().startswith(f"leak certificate: {total:,} leaks: ")
    assert certificate.line().endswith(f"; and {total - shown:,} more")


NOTE = "This is educational information only. Always consult healthcare professionals for medical decisions."
TEMPLATES = [
    "What is {c}?", "what does {c} mean", "{c}", "Could you explain {c} to a nursing student?", "{c} basics pls",
    "I keep reading the word {c}, in my book, on my ward and lately also above the door of a room that was empty when "
    "our group visited it during this long year. Which of my teachers could tell?",
]  # fmt: skip
ANSWERS = [
    "**Definition**: In short, {c} is a thing of medicine.\n\n**Note**: " + NOTE,
    "What: {c} is a thing.\nSigns:\n- one\n- two\nSure: yes",
    "{c}",
    "**Definition**: {c} is a disorder of the {organ} in which it swells and hurts.\n\n**Note**: " + NOTE,
]
ALIKE = {
    "electrolytes": ["hyperkalemia", "hypokalemia", "hypernatremia", "hyponatremia", "hypercalcemia", "hypocalcemia"],
    "types": [f"type {n} diabetes mellitus" for n in range(1, 61)],
    "letters": [f"hepatitis {chr(ord('A') + n)}" for n in range(26)],
    "numbers": [f"patient {n}" for n in range(1, 201)],
    "three": ["anuria", "oliguria", "polyuria"],
    "five": ["anuria", "oliguria", "polyuria", "dysuria", "hematuria"],  # of which two get the long template
}
ORGANS = ["liver", "spleen", "heart", "bladder", "stomach", "thyroid", "retina", "cochlea", "colon", "kidney"]


def made_of(names: list[str], answer: str) -> tuple[Rows, Concepts]:
    rows: Rows = {name: [] for name in SPLITS}
    concepts: Concepts = {name: [] for name in SPLITS}
    for number, concept in enumerate(names):
        there = SPLITS[number % 3]
        concepts[there].append({"group": concept.lower(), "names": [concept.lower()]})
        text = answer.format(c=concept[:1].upper() + concept[1:], organ=ORGANS[number % len(ORGANS)])
        for n in range(3):
            request = TEMPLATES[(number + n) % len(TEMPLATES)].format(c=concept)
            rows[there].append(Example(f"t/{number}/{n}", concept, "t", request, "", {}, text, ()))
    return rows, concepts


@pytest.mark.parametrize("answer", ANSWERS, ids=["note", "record", "name alone", "disorder"])
@pytest.mark.parametrize("names", ALIKE.values(), ids=ALIKE)
def test_templates_notes_and_like_names_are_no_leak(names: list[str], answer: str) -> None:
    rows, concepts = made_of(names, answer)
    line = certify(rows, concepts).line()
    assert line.startswith("leak certificate: clean: ")
    assert re.search(r"; (closest requests 0\.|no two requests have enough in common)", line)
    assert re.search(r"; (closest responses 0\.[012]|no two responses have enough in common)", line)
    put(rows, "test", 0, request=rows["train"][0].request)  # but the same one is
    assert not certify(rows, concepts).clean


def test_a_misspelling_of_its_own_concept_is_no_leak() -> None:
    rows, concepts = made_of(ALIKE["electrolytes"], ANSWERS[1])
    assert (rows["train"][0].concept, rows["validation"][0].concept) == ("hyperkalemia", "hypokalemia")
    put(rows, "validation", 0, request="what is hypokalmia")
    assert certify(rows, concepts).clean
    put(rows, "validation", 0, request="what is hyperkalmia")
    assert not certify(rows, concepts).clean


def test_the_order_of_rows_and_names_does_not_count(rows: Rows, concepts: Concepts, certificate: Certificate) -> None:
    shuffle = random.Random(3).shuffle

    def mixed() -> tuple[Rows, Concepts]:
        for members in [*rows.values(), *concepts.values()]:
            shuffle(members)
        for group in [group for groups in concepts.values() for group in groups]:
            shuffle(group["names"])
        return dict(reversed(rows.items())), dict(reversed(concepts.items()))

    assert certify(*mixed()).to_json() == certificate.to_json()
    for name in ("an_alias", "a_request", "a_misspelled_request", "a_response_with_words_changed"):
        getattr(planted_leaks, name)(rows, concepts)
    for number in range(40, 50):
        put(rows, "train", number, concept="no such concept")
        put(rows, "test", number, response=rows["train"][number * 4].response)
    for group in concepts["train"][:60]:  # whose names have several spellings
        concepts["validation"][9]["names"] += group["names"]
    leaking = certify(rows, concepts)
    assert not leaking.clean and certify(*mixed()).to_json() == leaking.to_json()
