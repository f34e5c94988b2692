"""Whole concepts go to a side; the side hangs on the seed and the group alone."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data_gen.compose.split import SEED, SHARES, draw, side, split
from data_gen.facts import Fact, read_facts
from tests import strategies  # noqa: F401  the hypothesis profile
from tests.conftest import ROOT

SHIPPED = ROOT / "data_gen/facts/terminology"


def _facts(names: list[str]) -> list[Fact]:
    return [Fact(f"id/{name}", "c", name) for name in names]


def test_the_draw_is_the_same_everywhere() -> None:
    assert draw(0, "split", "uremia") == 14468469116957935357  # printf '0\037split\037uremia' | sha256sum, 16 digits
    assert draw("a", "b") != draw("ab") and draw("a\x1f", "b") != draw("a", "b")


@given(
    st.lists(st.text(min_size=1), unique_by=str.lower, min_size=1),
    st.lists(st.text(min_size=1), unique=True),
    st.integers(),
)
def test_adding_facts_moves_nothing_already_placed(names: list[str], more: list[str], seed: int) -> None:
    before = split(_facts(names), seed)
    after = split(_facts(more + names), seed)
    for name, facts in before.items():
        assert {fact.id for fact in facts} <= {fact.id for fact in after[name]}


def test_a_group_is_never_parted() -> None:
    facts = read_facts(SHIPPED, set())
    for seed in range(20):
        sides = split(facts, seed)
        names = {name: {n for fact in members for n in fact.names} for name, members in sides.items()}
        assert (
            not names["train"] & names["test"]
            | names["train"] & names["validation"]
            | names["validation"] & names["test"]
        )


def test_the_shares_are_kept() -> None:
    counts = Counter(side(f"concept {n}", seed=3) for n in range(20_000))
    assert all(abs(counts[name] / 20_000 - share) < 0.01 for name, share in SHARES.items())
    assert SHARES == {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_another_seed_is_another_split() -> None:
    groups = [f"concept {n}" for n in range(200)]
    assert [side(group, 1) for group in groups] != [side(group, 2) for group in groups]


def test_the_default_seed_leaves_at_least_sixty_test_concepts_over_all_categories() -> None:
    held_out = split(read_facts(SHIPPED, set()), SEED)["test"]
    counts = Counter(fact.category for fact in held_out)
    assert len({fact.group for fact in held_out}) >= 60 and len(counts) == 5 and min(counts.values()) >= 10
