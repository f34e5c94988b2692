"""A text -> where it says the same again and again: a phrase, a run of characters, a sentence.

A model in a loop repeats itself until the limit stops it; a person repeats two words, or a title.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import ne

Span = tuple[int, int]  # start and end in the text

LONG_TOKEN = 400  # characters without white space: no word is as long

# A phrase's length n, n bytes in bits, and as many zeros as words in a row must stand there a phrase earlier too: of a
# short phrase two more rounds (three of a single word), of a long one a single round is no chance.
_PHRASES = [(n, 8 * n, bytes(3 if n == 1 else 2 * n if n < 5 else n)) for n in range(1, 41)]
_SHORT = _PHRASES[:8]  # what is looked for in a text that keeps its form, where no loop can be long


def phrase_loop(text: str, clean: bool) -> Span | None:
    """Where one phrase, or one run of characters, stands again and again.  Two rounds over two lines are a doubled
    section, no loop."""
    if clean and not _may_loop(text):
        return None
    words = text.split()
    places: list[Span] = []
    for step, _, wanted in _SHORT if clean else _PHRASES:
        for first, last in _rounds(words, step, wanted):
            places = places or [match.span() for match in re.finditer(r"\S+", text)]
            start, end = places[first][0], places[last - 1][1]
            if last - first >= 3 * step or "\n" not in text[start:end]:
                return start, end
    return _token_loop(text) if max(map(len, words), default=0) >= LONG_TOKEN else None


def _may_loop(text: str) -> bool:
    """False for a text that surely has no loop, in a fraction of the time that it takes to find one.

    The words' initials, digits and punctuation as one number, shifted and compared with itself: where words repeat, these do.
    """
    letters = text.encode("ascii", "ignore")
    initials = letters.title().translate(None, b"abcdefghijklmnopqrstuvwxyz \n")
    whole, size = int.from_bytes(initials, "little"), len(initials)
    for _, bits, wanted in _SHORT:
        if wanted in (whole ^ (whole >> bits)).to_bytes(size, "little"):
            return True
    half = LONG_TOKEN // 2
    if any(" " not in text[start : start + half] for start in range(0, len(text) - half, half)):
        return True
    return 10 * len(letters) < 9 * len(text)  # another script, which has no initials here


def _rounds(words: list[str], step: int, wanted: bytes) -> Iterator[Span]:
    """First and last-plus-one of the words of each stretch that repeats every `step` words."""
    differs = bytes(map(ne, words, words[step:]))
    end = 0
    while (start := differs.find(wanted, end)) >= 0:
        end = differs.find(b"\1", start)
        end = end if end >= 0 else len(differs)
        yield start, end + step


def _token_loop(text: str) -> Span | None:
    """A run of characters without white space that is mostly one short string: "hahahaha..."."""
    for match in re.finditer(rf"\S{{{LONG_TOKEN},}}+", text):
        middle = len(match[0]) // 2
        piece = match[0][middle : middle + 4]
        if 8 * match[0].count(piece) >= len(match[0]):
            return match.span()
    return None


def sentence_loop(sentences: Sequence[str], text: str) -> Span | None:
    """A sentence that stands three times, wherever, or twice in a row."""
    if len(set(sentences)) == len(sentences):
        return None
    times = Counter(sentences)
    for one, following in zip(sentences, [*sentences[1:], ""], strict=True):
        if len(one) > 20 and (times[one] > 2 or one == following):
            start = text.find(one)
            return start, start + len(one)
    return None
