"""Texts of several splits -> the pairs across splits that are nearly the same: MinHash, LSH, then exact Jaccard.

A text is the set of its shingles: the pairs of neighbouring tokens (words or letters) of its phrases, whose beginning
and end count as tokens.  The order of phrases does not matter, so a text with its sentences reordered is the same set.
Shingles that stand in the texts of many concept groups are boilerplate (headings, notes, frames, turns of the language)
and are dropped first: only what a text says of its own concept is compared.
"""

from __future__ import annotations

import itertools
import zlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array

MOST = 100  # so many pairs are kept; all are counted
_EDGE = ""  # the token before and after a phrase
_CHUNK = 8192  # pairs compared at once, which takes a few ten MB


class Text(NamedTuple):
    split: str
    group: str  # of the concept that the text is about
    phrases: tuple[str, ...]
    own: float = 0.0  # how near it comes to a name of its own concept, 1 for saying it; see `near_pairs`


@dataclass(frozen=True)
class Measure:
    """How two texts are compared, and from where on they are too much alike."""

    tokens: Literal["words", "letters"]  # of which neighbours are paired
    everywhere: float  # a shingle in the texts of more than this share of the groups is boilerplate ...
    few: int  # ... unless these are no more than so many groups
    shared: int  # fewer shared shingles are too little to tell
    limit: float  # Jaccard similarity: from here on two texts are nearly the same
    bands: int  # two texts of similarity s meet with the probability 1 - (1 - s ** rows) ** bands
    rows: int
    seed: int = 1  # of the MinHash permutations

    def split(self, phrase: str) -> Sequence[str]:
        return phrase.split() if self.tokens == "words" else phrase


class Pair(NamedTuple):
    similarity: float
    first: int  # which text, in the order given
    second: int


@dataclass(frozen=True)
class Found:
    closest: list[
        Pair
    ]  # of all pairs that were compared the closest one; none where no two texts have enough in common
    near: list[Pair]  # at or over the limit, the closest first
    count: int  # of them, the ones beyond MOST too
    alike: dict[int, list[int]]  # the text that a pair names -> all texts of its split with the same shingles


def near_pairs(texts: Sequence[Text], measure: Measure) -> Found:
    """The pairs of texts from two splits that are nearly the same.

    Two texts count only where one of them is nearer to the other than to its own concept's name.  Of a split's texts
    with the same shingles the first stands for all: the result depends on the order of the texts (sort them) and on
    nothing else.
    """
    import numpy as np

    alike, sets, hashes = _sets(texts, measure)
    kept = np.array(list(alike), np.int64)
    sizes = np.diff(sets.indptr)
    own = np.array([texts[n].own for n in kept], float)
    candidates = _candidates([texts[n].split for n in kept], sets, hashes, measure)
    closest: list[Pair] = []
    near: list[Pair] = []
    count = 0
    while chunk := list(itertools.islice(candidates, _CHUNK)):
        first, second = np.array(chunk).T
        shared = sets[first].multiply(sets[second]).sum(axis=1)
        degree = np.where(shared < measure.shared, 0.0, shared / (sizes[first] + sizes[second] - shared))
        found = np.rec.fromarrays([degree, kept[first], kept[second]])
        over = (degree >= measure.limit) & (degree > np.minimum(own[first], own[second]))
        count += int(over.sum())
        near = _closest_first(near, found[over])[:MOST]
        closest = _closest_first(closest, found[(degree > 0) & (degree == degree.max())])[:1]
    return Found(closest, near, count, alike)


def similarity(first: Sequence[str], second: Sequence[str], measure: Measure) -> float:
    """Of two texts, given as phrases, with their boilerplate.

    >>> similarity(["asthma"], ["astma"], Measure("letters", everywhere=1, few=2, shared=1, limit=0.5, bands=2, rows=2))
    0.625
    """
    one, other = ({pair for phrase in text for pair in _pairs(measure.split(phrase))} for text in (first, second))
    return len(one & other) / (len(one | other) or 1)


def _pairs(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    return itertools.pairwise([_EDGE, *tokens, _EDGE])


def _closest_first(pairs: list[Pair], more: np.recarray) -> list[Pair]:
    return sorted([*pairs, *map(Pair._make, more.tolist())], key=lambda p: (-p.similarity, p.first, p.second))


def _sets(texts: Sequence[Text], measure: Measure) -> tuple[dict[int, list[int]], csr_array, np.ndarray]:
    """The texts by what they say, as `Found.alike`; a row of zeros and ones, their shingles, for each; the hashes."""
    import numpy as np

    numbers: dict[str, int] = {}  # phrase -> number
    said = [sorted({numbers.setdefault(phrase, len(numbers)) for phrase in text.phrases}) for text in texts]
    shingles, hashes = _shingles(map(measure.split, numbers))
    groups: dict[str, set[int]] = {}
    for text, phrases in zip(texts, said, strict=True):
        groups.setdefault(text.group, set()).update(phrases)
    spread = np.diff((_table(groups.values(), len(numbers)) @ shingles).tocsc().indptr)  # each shingle's groups
    rare = np.flatnonzero(spread <= max(measure.few, len(groups) * measure.everywhere))
    shingles = shingles[:, rare]
    telling = (np.diff(shingles.indptr) > 0).tolist()
    distinct: dict[tuple[str, float, tuple[int, ...]], list[int]] = {}
    for n, (text, phrases) in enumerate(zip(texts, said, strict=True)):
        key = text.split, text.own, tuple(phrase for phrase in phrases if telling[phrase])
        distinct.setdefault(key, []).append(n)
    sets = _table([phrases for _, _, phrases in distinct], len(numbers)) @ shingles
    enough = np.flatnonzero(np.diff(sets.indptr) >= measure.shared)
    sets = sets[enough]
    sets.data[:] = 1
    alike = list(distinct.values())
    return {alike[n][0]: alike[n] for n in enough}, sets, hashes[rare]


def _table(members: Collection[Collection[int]], width: int) -> csr_array:
    """A row of zeros and ones for each collection of column numbers."""
    import numpy as np
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *map(len, members)])
    columns = np.fromiter(itertools.chain.from_iterable(members), np.int32, ends[-1])
    return csr_array((np.ones(len(columns), np.int32), columns, ends), shape=(len(members), width))


def _shingles(phrases: Iterable[Sequence[str]]) -> tuple[csr_array, np.ndarray]:
    """A row for each phrase, a column for each pair of neighbouring tokens; and a 32-bit hash of each column.

    The hash is of the two tokens alone: the same in every process, whatever other phrases there are.
    """
    import numpy as np
    from scipy.sparse import csr_array

    numbers = {_EDGE: 0}  # token -> number
    flow = array("i", [0])
    for phrase in phrases:
        flow.extend([*(numbers.setdefault(token, len(numbers)) for token in phrase), 0])
    tokens = np.frombuffer(flow, np.int32)
    edges = tokens == 0
    pairs, columns = np.unique(tokens[:-1] * np.int64(len(numbers)) + tokens[1:], return_inverse=True)
    place = np.cumsum(edges, dtype=np.int32)[:-1] - 1, columns.astype(np.int32)
    shingles = csr_array((np.ones(len(columns), np.int32), place), shape=(int(edges.sum()) - 1, len(pairs)))
    shingles.data[:] = 1
    crc = np.array([zlib.crc32(token.encode()) for token in numbers], np.uint64)
    left, right = np.divmod(pairs, len(numbers))
    mixed = crc[left] * np.uint64(0x9E3779B97F4A7C15) + crc[right] * np.uint64(0xC2B2AE3D27D4EB4F)
    return shingles, (mixed >> np.uint64(32)).astype(np.uint32)


def _candidates(
    splits: Sequence[str], sets: csr_array, hashes: np.ndarray, measure: Measure
) -> Iterator[tuple[int, int]]:
    """The pairs of rows from two splits that share a band, the smaller number first.

    The largest split only asks: keeping the others' bands takes a fraction of the memory.
    """
    from datasketch import MinHash, MinHashLSH

    largest = max(Counter(splits).items(), key=lambda item: (item[1], item[0]))[0] if splits else ""
    order = sorted(range(len(splits)), key=lambda n: splits[n] == largest)
    members = (hashes[sets.indices[sets.indptr[n] : sets.indptr[n + 1]]].tolist() for n in order)
    permutations = measure.bands * measure.rows
    index = MinHashLSH(num_perm=permutations, params=(measure.bands, measure.rows))
    for n, sketch in zip(
        order, MinHash.generator(members, num_perm=permutations, seed=measure.seed, hashfunc=int), strict=True
    ):
        yield from ((min(n, m), max(n, m)) for m in sorted(index.query(sketch)) if splits[m] != splits[n])
        if splits[n] != largest:
            index.insert(n, sketch)
