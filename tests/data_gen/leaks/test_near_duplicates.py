"""Near pairs across splits: exact against brute force, whatever the order of phrases; boilerplate does not count."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from data_gen.leaks.near_duplicates import MOST, Measure, Text, near_pairs, similarity

WORDS = [f"w{n}" for n in range(400)]
MEASURE = Measure("words", everywhere=1.0, few=2, shared=4, limit=0.35)


def prose(seed: int, length: int = 40) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def altered(text: str, share: float, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) if draw.random() < share else word for word in text.split())


def text(split: str, group: str, *phrases: str, own: float = 0.0) -> Text:
    return Text(split, group, phrases, own)


@pytest.mark.parametrize("tokens", ["words", "letters"])
def test_the_matrix_finds_what_brute_force_finds(tokens: str) -> None:
    texts = [text(("train", "train", "train", "validation", "test")[n % 5], f"g{n}", prose(n)) for n in range(150)]
    for n in range(150):
        texts.append(text(("test", "validation", "train")[n % 3], f"h{n}", altered(prose(n), (n % 4 + 1) / 10, n)))
    measure = replace(MEASURE, tokens=tokens, limit=0.35 if tokens == "words" else 0.6)
    wanted = {
        (i, j)
        for i, one in enumerate(texts)
        for j, other in enumerate(texts[i + 1 :], i + 1)
        if one.split != other.split and similarity(one.phrases, other.phrases, measure) >= measure.limit
    }
    found = near_pairs(texts, measure)
    assert len(wanted) > 40 and found.count == len(wanted)
    assert {(pair.first, pair.second) for pair in found.near} <= wanted and len(found.near) == min(MOST, len(wanted))
    for degree, first, second in [*found.near, *found.closest]:
        assert degree == pytest.approx(similarity(texts[first].phrases, texts[second].phrases, measure))
    assert found.closest == found.near[:1]


def test_pairs_of_one_split_do_not_count() -> None:
    found = near_pairs(
        [text("train", "a", prose(1)), text("train", "b", prose(1)), text("test", "c", prose(2))], MEASURE
    )
    assert (found.near, found.count, found.closest) == ([], 0, [])


def test_the_order_of_phrases_does_not_count() -> None:
    parts = [prose(n, 9) for n in range(6)]
    found = near_pairs([text("train", "a", *parts), text("test", "b", *reversed(parts))], MEASURE)
    assert [(pair.similarity, pair.first, pair.second) for pair in found.near] == [(1.0, 0, 1)]


def test_what_many_groups_say_is_boilerplate() -> None:
    texts = [text(("train", "test")[n % 2], f"g{n}", prose(0), prose(n + 1, 12)) for n in range(40)]
    assert near_pairs(texts, MEASURE).count > 300
    found = near_pairs(texts, replace(MEASURE, everywhere=0.1))
    assert found.count == 0 and found.closest == []
    few = near_pairs(texts[:2], replace(MEASURE, everywhere=0.1))  # two groups are not many
    assert few.count == 1


def test_a_text_stands_for_all_that_differ_in_boilerplate() -> None:
    frames = [f"frame {n} of all" for n in range(4)]
    texts = [text("train", f"g{n}", frame, prose(n)) for n in range(9) for frame in frames]
    texts += [text("test", "x", frames[0], prose(3))]
    found = near_pairs(texts, replace(MEASURE, everywhere=0.1))
    assert found.count == 1 and found.alike[found.near[0].first] == [12, 13, 14, 15]


def test_too_little_in_common_is_not_compared() -> None:
    for extra in ((), ("three",)):
        texts = [text("train", "a", "one two", *extra), text("test", "b", "one two", "four")]
        found = near_pairs(texts, replace(MEASURE, limit=0.1))
        assert found.count == 0 and found.closest == []
    assert near_pairs(texts, replace(MEASURE, limit=0.1, shared=2)).count == 1


@pytest.mark.parametrize("cells", [1, 700])
def test_the_size_of_a_block_does_not_count(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text(("train", "test", "validation")[n % 3], f"a{n}", altered(prose(n % 20), 0.2, n)) for n in range(120)]
    whole = near_pairs(texts, MEASURE)
    monkeypatch.setattr("data_gen.leaks.near_duplicates._CELLS", cells)
    assert whole.count > 20 and near_pairs(texts, MEASURE) == whole


@pytest.mark.parametrize(("own", "count"), [((0.0, 0.0), 1), ((1.0, 0.3), 1), ((1.0, 0.9), 0), ((1.0, 1.0), 0)])
def test_a_text_nearer_to_its_own_name_does_not_count(own: tuple[float, float], count: int) -> None:
    measure = replace(MEASURE, tokens="letters", limit=0.5)
    texts = [text("train", "a", "hyperkalemia", own=own[0]), text("test", "b", "hypokalemia", own=own[1])]
    found = near_pairs(texts, measure)
    assert found.count == count and len(found.closest) == 1


def test_all_pairs_are_counted_where_not_all_are_kept() -> None:
    texts = [text("train", f"a{n}", prose(n)) for n in range(MOST + 20)]
    texts += [text("test", f"b{n}", prose(n)) for n in range(MOST + 20)]
    found = near_pairs(texts, MEASURE)
    assert found.count == MOST + 20 and len(found.near) == MOST


def test_no_text_at_all() -> None:
    assert near_pairs([], MEASURE).count == 0
