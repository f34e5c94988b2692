"""Texts of several splits -> the pairs across splits that are nearly the same (exact Jaccard).

A text is the set of its shingles: the pairs of neighbouring tokens (words or letters) of its phrases.  The beginning
and the end of a phrase count as tokens.  The order of phrases does not matter, so a text with its sentences reordered
is the same set.  Shingles in the texts of many concept groups are boilerplate (headings, notes, frames, turns of the
language) and are dropped first, because only what a text says about its own concept is compared.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

MOST = 100  # pairs that are kept; all are counted
_EDGE = ""  # the token before and after a phrase
_CELLS = 1 << 22  # pairs compared at once: at most about 100 MB


class Text(NamedTuple):
    split: str
    group: str  # of the concept that the text is about
    phrases: tuple[str, ...]
    own: float = 0.0  # its similarity to the nearest name of its own concept, 1 if it holds one; see `near_pairs`


@dataclass(frozen=True)
class Measure:
    """How two texts are compared, and from which similarity they are too much alike."""

    tokens: Literal["words", "letters"]  # whose neighbours are paired
    everywhere: float  # a shingle in the texts of more than this share of the groups is boilerplate ...
    few: int  # ... unless it is in the texts of this many groups or fewer
    shared: int  # two texts with fewer shared shingles are not compared
    limit: float  # Jaccard similarity from which two texts are nearly the same

    def split(self, phrase: str) -> Sequence[str]:
        return phrase.split() if self.tokens == "words" else phrase


class Pair(NamedTuple):
    similarity: float
    first: int  # which text, in the order given
    second: int


@dataclass(frozen=True)
class Found:
    closest: list[Pair]  # the closest of all pairs; empty if no two texts share enough to be compared
    near: list[Pair]  # at or over the limit, the closest first
    count: int  # of all near pairs, those beyond MOST too
    alike: dict[int, list[int]]  # the text that a pair names -> all texts of its split with the same shingles


def near_pairs(texts: Sequence[Text], measure: Measure) -> Found:
    """The pairs of texts from two splits that are nearly the same.

    Two texts count only if one of them is nearer to the other than to its own concept's name.  Of a split's texts with
    the same shingles the first represents all.  The result depends only on the texts and their order, so sort them.
    """
    import numpy as np

    alike, sets = _sets(texts, measure)
    kept = np.array(list(alike), np.int64)
    sizes = np.diff(sets.indptr)
    own = np.array([texts[n].own for n in kept], float)
    closest: list[Pair] = []
    near: list[Pair] = []
    count = 0
    for first, second, shared in _overlaps([texts[n].split for n in kept], sets, measure.shared):
        degree = shared / (sizes[first] + sizes[second] - shared)
        found = np.rec.fromarrays([degree, kept[first], kept[second]])
        over = (degree >= measure.limit) & (degree > np.minimum(own[first], own[second]))
        count += int(over.sum())
        near = _closest_first(near, found[over])[:MOST]
        closest = _closest_first(closest, found[degree == degree.max()])[:1]
    return Found(closest, near, count, alike)


def similarity(first: Sequence[str], second: Sequence[str], measure: Measure) -> float:
    """Of two texts, given as phrases, with their boilerplate.

    >>> similarity(["asthma"], ["astma"], Measure("letters", everywhere=1, few=2, shared=1, limit=0.5))
    0.625
    """
    one, other = ({pair for phrase in text for pair in _pairs(measure.split(phrase))} for text in (first, second))
    return len(one & other) / (len(one | other) or 1)


def _pairs(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    return itertools.pairwise([_EDGE, *tokens, _EDGE])


def _closest_first(pairs: list[Pair], more: np.recarray) -> list[Pair]:
    return sorted([*pairs, *map(Pair._make, more.tolist())], key=lambda p: (-p.similarity, p.first, p.second))


def _sets(texts: Sequence[Text], measure: Measure) -> tuple[dict[int, list[int]], csr_array]:
    """The texts by their shingles, as `Found.alike`, and the matrix of them: a row of zeros and ones for each text."""
    import numpy as np

    numbers: dict[str, int] = {}  # phrase -> number
    spoken = [sorted({numbers.setdefault(phrase, len(numbers)) for phrase in text.phrases}) for text in texts]
    shingles = _shingles(map(measure.split, numbers))
    groups: dict[str, set[int]] = {}
    for text, phrases in zip(texts, spoken, strict=True):
        groups.setdefault(text.group, set()).update(phrases)
    spread = np.diff((_incidence(groups.values(), len(numbers)) @ shingles).tocsc().indptr)  # each shingle's groups
    shingles = shingles[:, np.flatnonzero(spread <= max(measure.few, len(groups) * measure.everywhere))]
    telling = (np.diff(shingles.indptr) > 0).tolist()
    distinct: dict[tuple[str, float, tuple[int, ...]], list[int]] = {}
    for n, (text, phrases) in enumerate(zip(texts, spoken, strict=True)):
        key = text.split, text.own, tuple(phrase for phrase in phrases if telling[phrase])
        distinct.setdefault(key, []).append(n)
    sets = _incidence([phrases for _, _, phrases in distinct], len(numbers)) @ shingles
    enough = np.flatnonzero(np.diff(sets.indptr) >= measure.shared)
    sets = sets[enough]
    sets.data[:] = 1
    alike = list(distinct.values())
    return {alike[n][0]: alike[n] for n in enough}, sets


def _incidence(members: Collection[Collection[int]], width: int) -> csr_array:
    """A row of zeros and ones for each collection of column numbers."""
    import numpy as np
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *map(len, members)])
    columns = np.fromiter(itertools.chain.from_iterable(members), np.int32, ends[-1])
    return csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(members), width))


def _shingles(phrases: Iterable[Sequence[str]]) -> csr_array:
    """A row of zeros and ones for each phrase, with a column for each pair of neighbouring tokens."""
    columns: dict[tuple[str, str], int] = {}
    rows = [{columns.setdefault(pair, len(columns)) for pair in _pairs(phrase)} for phrase in phrases]
    return _incidence(rows, len(columns))


def _overlaps(
    splits: Sequence[str], sets: csr_array, least: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The pairs of rows from two splits that share `least` shingles or more: both rows, the smaller first, and how many.

    Rows of one split are multiplied with all rows of the larger splits, a block at a time, so that memory stays bounded.
    """
    import numpy as np

    smallest_first = sorted(Counter(splits).items(), key=lambda item: (item[1], item[0]))
    places = [np.flatnonzero(np.array(splits) == split) for split, _ in smallest_first]
    for n, rows in enumerate(places[:-1]):
        others = np.concatenate(places[n + 1 :])
        columns = sets[others].T.tocsr()
        step = max(1, _CELLS // len(others))
        for block in (rows[start : start + step] for start in range(0, len(rows), step)):
            product = (sets[block] @ columns).tocoo()
            enough = product.data >= least
            if enough.any():
                one, other = block[product.row[enough]], others[product.col[enough]]
                yield np.minimum(one, other), np.maximum(one, other), product.data[enough]
