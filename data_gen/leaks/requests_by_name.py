"""Rows and concept groups -> distinct texts of each split, and the name that each request asks for.

A request is a template around a name.  A word in the requests of several groups belongs to a template.  What is left
is the name that is asked for, and whatever else only the requests of this concept contain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from contract.example import SPLITS, Example
from data_gen.leaks.near_duplicates import Measure, Text, similarity
from plumbing.wording import name_key, phrases, singular_words

# A word that the requests of more groups hold beside their own name is a template's.  The shipped templates are in the
# requests of about 20 groups each, and of 5 where every concept has one row; a misspelled name is in one or two.
_TEMPLATE_GROUPS = 2


class DistinctText(NamedTuple):
    """A request or a response of a concept group, and the ids of the rows that hold it."""

    split: str
    group: str
    text: str
    ids: tuple[str, ...]


class Names(NamedTuple):
    """The names of the concept groups."""

    spelled: dict[tuple[str, str], list[str]]  # split, group -> its names by `singular_words`, the longest first
    holders: dict[str, dict[str, tuple[str, str]]]  # key of a name -> split -> a group of it, the name as it is written

    def group(self, split: str, concept: str) -> str:
        """The group of a concept; one of its own if the split has none of that name."""
        holder = self.holders.get(name_key(concept) or concept, {}).get(split)
        return holder[0] if holder else f"{concept} (in no group)"


def read_names(concepts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Names:
    """`concepts` is the content of concepts.json: the groups of each split with their names."""
    names = Names({}, {})
    for split in sorted(concepts):
        for entry in sorted(concepts[split], key=lambda entry: entry["group"]):
            own = sorted({entry["group"], *entry["names"]})
            spelled = names.spelled.setdefault((split, entry["group"]), [])
            spelled += sorted({words for name in own if (words := singular_words(name))}, key=lambda n: (-len(n), n))
            for name in own:
                names.holders.setdefault(name_key(name) or name, {}).setdefault(split, (entry["group"], name))
    return names


def distinct_texts(rows: Mapping[str, Sequence[Example]], names: Names, field: str) -> list[DistinctText]:
    """The distinct texts of `field`, in an order that does not depend on the order of the rows."""
    groups: dict[tuple[str, str], str] = {}
    ids: dict[tuple[str, str, str], list[str]] = {}
    for split, examples in rows.items():
        for row in examples:
            place = (split, row.concept)
            group = groups.get(place) or groups.setdefault(place, names.group(*place))
            ids.setdefault((split, group, getattr(row, field)), []).append(row.id)
    found = [DistinctText(*key, tuple(sorted(own))) for key, own in ids.items()]
    return sorted(found, key=lambda text: (SPLITS.index(text.split), *text))


def by_phrases(texts: Iterable[DistinctText]) -> dict[Text, list[DistinctText]]:
    """The texts by their phrases."""
    found: dict[Text, list[DistinctText]] = {}
    for text in texts:
        found.setdefault(Text(text.split, text.group, tuple(phrases(text.text))), []).append(text)
    return found


def by_asked_name(requests: Sequence[DistinctText], names: Names, measure: Measure) -> dict[Text, list[DistinctText]]:
    """The requests by the name that they ask for, as one phrase.

    A request without a name of its own concept may misspell one: `own` is its similarity to the nearest name.
    """
    parts = [_name_and_rest(request, names) for request in requests]
    template = _template_words(requests, parts)
    found: dict[Text, list[DistinctText]] = {}
    for request, (name, rest) in zip(requests, parts, strict=True):
        left = " ".join([*([name] if name else []), *(word for word in rest.split() if word not in template)])
        own_names = names.spelled.get((request.split, request.group), [])
        own = 1.0 if name else max((similarity([left], [one], measure) for one in own_names), default=0.0)
        if left:
            found.setdefault(Text(request.split, request.group, (left,), own), []).append(request)
    return found


def _name_and_rest(request: DistinctText, names: Names) -> tuple[str, str]:
    """The longest name of its own concept that a request holds ("" for none), and its other words."""
    words = f" {singular_words(request.text)} "
    for name in names.spelled.get((request.split, request.group), []):
        if f" {name} " in words:
            return name, words.replace(f" {name} ", " ").strip()
    return "", words.strip()


def _template_words(requests: Sequence[DistinctText], parts: Sequence[tuple[str, str]]) -> set[str]:
    """The words of the templates.  If most requests hold their name, they are learnt from those requests alone.

    If two groups have the same words around their names, all of these words belong to a template.
    """
    named = sum(bool(name) for name, _ in parts)
    groups: dict[str, set[str]] = defaultdict(set)  # what is left of a request without its name -> groups
    for request, (name, rest) in zip(requests, parts, strict=True):
        if name or 2 * named < len(parts):
            groups[rest].add(request.group)
    spread: dict[str, set[str]] = defaultdict(set)
    for rest, members in groups.items():
        for word in rest.split():
            spread[word] |= members
    whole = {word for rest, members in groups.items() if len(members) > 1 for word in rest.split()}
    return whole | {word for word, members in spread.items() if len(members) > _TEMPLATE_GROUPS}
