"""Text -> where it repeats itself in a loop: a phrase, a run of characters, or a sentence.

A model in a loop repeats itself until the limit stops it; a person repeats two words, or a title.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import ne

Span = tuple[int, int]  # start and end in the text

LONG_TOKEN = 400  # characters without white space: no word is as long

# A phrase's length n in words, and one zero byte for each word in a row that must equal the word n places before it:
# two more rounds of a short phrase (three of a single word); one more round of a long phrase is not chance either.
_PHRASES = [(n, bytes(3 if n == 1 else 2 * n if n < 5 else n)) for n in range(1, 41)]
_SHORT = _PHRASES[:8]  # for a text that keeps its form, where a loop cannot be long


def phrase_loop(text: str, clean: bool) -> Span | None:
    """Where one phrase, or one run of characters, repeats.  Two rounds over two lines are not a loop but a doubled
    section."""
    words = text.split()
    places: list[Span] = []
    for step, zeros in _SHORT if clean else _PHRASES:
        for first, last in _rounds(words, step, zeros):
            places = places or [match.span() for match in re.finditer(r"\S+", text)]
            start, end = places[first][0], places[last - 1][1]
            if last - first >= 3 * step or "\n" not in text[start:end]:
                return start, end
    return _token_loop(text) if max(map(len, words), default=0) >= LONG_TOKEN else None


def _rounds(words: list[str], step: int, zeros: bytes) -> Iterator[Span]:
    """First and last-plus-one word of each stretch that repeats every `step` words."""
    differs = bytes(map(ne, words, words[step:]))
    end = 0
    while (start := differs.find(zeros, end)) >= 0:
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
    """Where a sentence stands that occurs three times anywhere, or twice in a row."""
    times = Counter(sentences)
    for one, following in zip(sentences, [*sentences[1:], ""], strict=False):
        if len(one) > 20 and (times[one] > 2 or one == following):
            start = text.find(one)
            return start, start + len(one)
    return None
