"""What requests ask for: their own concept's name, another one, and no word of a template."""

from __future__ import annotations

import pytest

from contract.example import Example
from data_gen.leaks.certification import REQUESTS
from data_gen.leaks.requests_by_name import by_asked_name, by_phrases, distinct_texts, read_names

CONCEPTS = {
    "train": [
        {"group": "hypertension", "names": ["high blood pressure", "hypertension"]},
        {"group": "aortic aneurysm", "names": ["aa", "aortic aneurysm"]},
        {"group": "artery", "names": ["arteries", "artery"]},
    ],
    "test": [{"group": "anemia", "names": ["anaemia", "anemia"]}, {"group": "x-ray", "names": ["x-ray"]}],
}


def row(concept: str, request: str, number: int = 0, response: str = "An answer.") -> Example:
    return Example(f"{concept}/{number}", concept, "c", request, "", {}, response, ())


def asks(rows: dict[str, list[Example]]) -> dict[tuple[str, str], tuple[str, float]]:
    """Split and group -> phrase and nearness of the one request there."""
    names = read_names(CONCEPTS)
    found = by_asked_name(distinct_texts(rows, names, "request"), names, REQUESTS)
    return {(text.split, text.group): (text.phrases[0], round(text.own, 2)) for text in found}


@pytest.mark.parametrize(
    ("concept", "request_", "left", "own"),
    [
        ("hypertension", "What is Hypertension?", "hypertension", 1.0),
        ("hypertension", "What is high-blood pressure??", "high blood pressure", 1.0),
        ("AA", "what is AA", "aa", 1.0),
        ("AA", "What is aortic aneurysm (AA)?", "aortic aneurysm aa", 1.0),  # the longest name is taken
        ("artery", "What are ARTERIES?", "artery are", 1.0),
        ("artery", "What is artherosclerosis?", "artherosclerose", 0.25),
        ("hypertension", "What is hypertensoin?", "hypertensoin", 0.62),
    ],
)
def test_the_name_that_is_asked_for_is_left(concept: str, request_: str, left: str, own: float) -> None:
    others = [row(name, f"What is {name}?", 9) for name in ("anemia", "x-ray")]
    plain = [row(name, f"What is {name}?", 9) for name in ("hypertension", "artery") if name != concept]
    found = asks({"train": [row(concept, request_), *plain], "test": others})
    group = {"AA": "aortic aneurysm"}.get(concept, concept)
    assert found["train", group] == (left, own)
    assert found["test", "x-ray"] == ("x ray", 1.0)


def test_words_of_three_groups_are_a_templates_without_one_whole_template() -> None:
    requests = {"hypertension": "Tell me about {}", "AA": "About {} tell me all", "artery": "Me, about {}: tell it"}
    rows = {"train": [row(name, text.format(name)) for name, text in requests.items()]}
    assert {left for left, _ in asks(rows).values()} == {"hypertension", "aa all", "artery it"}


def test_what_two_groups_say_around_their_names_is_a_template() -> None:
    rows = {
        "train": [row("artery", "Name the artery of the year")],
        "test": [row("anemia", "name the ANEMIA, of the year.")],
    }
    assert {left for left, _ in asks(rows).values()} == {"artery", "anemia"}


def test_where_hardly_any_request_says_its_name_all_of_them_show_the_template() -> None:
    signs = {"hypertension": "headache", "AA": "a pulsating mass", "artery": "bright blood"}
    rows = {"train": [row(name, f"Which thing shows {sign}?") for name, sign in signs.items()]}
    assert {left for left, _ in asks(rows).values()} == {"headach", "a pulsating mass", "bright blood"}


def test_a_text_is_listed_once_for_each_group_with_all_its_rows() -> None:
    rows = {
        "test": [row("anemia", "b?", 2), row("anaemia", "a?", 3, "Another.")],
        "train": [row("artery", "c?", 2), row("arteries", "d?", 1), row("nothing known", "e?")],
    }
    found = distinct_texts(rows, read_names(CONCEPTS), "response")
    assert [(text.split, text.group, text.text, text.ids) for text in found] == [
        ("train", "artery", "An answer.", ("arteries/1", "artery/2")),
        ("train", "nothing known (in no group)", "An answer.", ("nothing known/0",)),
        ("test", "anemia", "An answer.", ("anemia/2",)),
        ("test", "anemia", "Another.", ("anaemia/3",)),
    ]
    assert [len(texts) for texts in by_phrases(found).values()] == [1, 1, 1, 1]
