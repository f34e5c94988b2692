"""Invented names that replace a concept's name, so that the model learns to copy the name."""

from __future__ import annotations

import random
from collections.abc import Sequence

STEMS = (
    "ba", "cor", "den", "fi", "gal", "hem", "ir", "kel", "lor", "mi", "nu", "os", "per", "qua", "ri", "sol", "tor", "ul",
    "ver", "xan", "zy",
)  # fmt: skip
ENDS = (
    "itis", "osis", "emia", "oma", "pathy", "gram", "scopy", "us", "um", "a", "in", "ine", "al test", " disease",
    "ectomy", "tion", "en", "ia",
)  # fmt: skip


def invented_name(words: Sequence[str], rng: random.Random) -> str:
    """A random name: capitals like an abbreviation, some of the real `words`, or syllables."""
    kind = rng.random()
    if kind < 0.2:
        return "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(2, 5)))
    if kind < 0.6 and words:
        return " ".join(rng.sample(words, rng.choice((1, 1, 2, 2, 3))))
    return "".join(rng.choices(STEMS, k=rng.randint(2, 3))) + rng.choice(ENDS)
