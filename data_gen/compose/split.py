"""Facts -> train, validation, test; whole concepts, so that no test concept is trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from data_gen.facts import Fact

SEED = 12  # of the seeds 0 to 99 the one whose splits are the most even over the five categories
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def draw(*key: object) -> int:
    """A stable 64-bit number for a key: the same in any process, on any machine, in any order of calls.

    >>> draw(0, "uremia") == draw(0, "uremia")
    True
    """
    return int.from_bytes(hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()[:8], "big")


def side(group: str, seed: int) -> str:
    """The split of a concept group: a hash of (seed, group) alone, so a new fact never moves an existing concept.

    >>> side("uremia", seed=0)
    'train'
    """
    fraction = draw(seed, "split", group) / 2**64
    for split, share in SHARES.items():
        if fraction < share:
            return split
        fraction -= share
    return "test"


def split(facts: Sequence[Fact], seed: int) -> dict[str, list[Fact]]:
    """The facts of each split, in their given order."""
    sides: dict[str, list[Fact]] = {name: [] for name in SHARES}
    for fact in facts:
        sides[side(fact.group, seed)].append(fact)
    return sides
