"""A dataset's rows and concepts -> the certificate that train, validation and test share nothing.

It proves three things: no name of a concept is in two splits, and every row is about a concept of its own split; no
request and no response is in two splits; no two of them are nearly the same.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.contract import Contract, load_contract
from contract.example import SPLITS, Example, read_splits
from contract.kinds import Choice, Fixed
from data_gen.leaks.certificate import Certificate, Check, Closest, Leak, Row, listed
from data_gen.leaks.near_duplicates import Measure, Text, near_pairs, similarity
from data_gen.leaks.requests_by_name import DistinctText, Names, by_asked_name, by_phrases, distinct_texts, read_names
from plumbing.errors import UserError
from plumbing.wording import name_key, phrases, shorten

# Measured on the shipped dataset (2,880 rows about 666 groups).  Pairs of words: the closest responses of two splits
# have 0.20 (sensitivity, specificity), the next ones 0.14 and less.  With one word in ten changed a response keeps 0.45
# or more of itself, with one in five 0.42 at the median and 0.3 in 99 of 100, with its sentences reordered 1.
# Boilerplate is what more than 8 of the 666 groups share (more than 2 where there are few; a leak is in 2): each frame
# is in dozens, and with 5 or 40 instead of 8 the closest pair has 0.18 or 0.22.  Two answers that share fewer than 8
# other pairs share a turn of phrase.
RESPONSES = Measure("words", everywhere=1 / 80, few=2, shared=8, limit=0.3)
# A request with 20 words or more beside its template's (an abstract, a dictation) is compared as a whole.
LONG = 20
LONG_REQUESTS = dataclasses.replace(RESPONSES, shared=LONG)
# Pairs of letters, of the name that a request asks for.  Of the shipped names of six letters or more 98 % keep 0.5 with
# one letter changed, left out, added or swapped, 85 % with two.  Names of two concepts reach that too (low and high
# density lipoprotein: 0.71).  So a request counts only if it is nearer to another split's request than to the names of
# its own concept.  Pairs in half of many names ("patient" in "patient 17") are dropped; fewer than 4 shared pairs are
# chance ("MS", "MI").
REQUESTS = Measure("letters", everywhere=0.5, few=100, shared=4, limit=0.5)
_LISTED = 100  # leaks of each check that the certificate lists; all are counted
_TEXT = 80  # letters of a text that are shown


def certify(
    rows: Mapping[str, Sequence[Example]],
    concepts: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: frozenset[str] = frozenset(),
) -> Certificate:
    """Compare the splits.  `concepts` is the content of concepts.json: split -> [{group, names}].

    `labels` are sections with few possible values: a response of such sections alone may be in every split.
    """
    names = read_names(concepts)
    count = sum(map(len, rows.values()))
    written = sum(len(entry["names"]) for groups in concepts.values() for entry in groups)
    requests, responses = (distinct_texts(rows, names, field) for field in ("request", "response"))
    labelled = frozenset(row.response for split in rows.values() for row in split if row.record.keys() <= labels)
    by_name = by_asked_name(requests, names, REQUESTS)
    short = {text: members for text, members in by_name.items() if text.phrases[0].count(" ") + 1 < LONG}
    long = [request for text, members in by_name.items() if text not in short for request in members]
    checks = (
        _checked("names", written, _shared_names(names, requests)),
        _checked("concepts", count, [*_strange_concepts(rows, names), *_strange_requests(by_name, names)]),
        _same("request", requests),
        _same("response", responses, labelled),
        _near("requests", short, REQUESTS),
        _near("long requests", by_phrases(long), LONG_REQUESTS),
        _near("responses", by_phrases(responses), RESPONSES),
    )
    return Certificate(
        clean=not any(check.found for check in checks),
        concepts=len({(split, row.concept) for split, examples in rows.items() for row in examples}),
        names=written,
        rows=count,
        checks=checks,
    )


def _shared_names(names: Names, requests: Sequence[DistinctText]) -> Iterator[Leak]:
    """Names that two splits have, with the first row of each group."""
    first: dict[tuple[str, str], DistinctText] = {}
    for request in requests:
        key = (request.split, request.group)
        first[key] = min(first.get(key, request), request, key=lambda text: text.ids)
    for _, holders in sorted(names.holders.items()):
        for one, other in itertools.combinations([split for split in SPLITS if split in holders], 2):
            rows = [_rows(first[key])[0] for split in (one, other) if (key := (split, holders[split][0])) in first]
            spelled = " and ".join(f"'{holders[split][1]}' in {split}" for split in (one, other))
            yield Leak(f"the same name: {spelled} ({listed(rows) if rows else 'no row'})", tuple(rows))


def _strange_concepts(rows: Mapping[str, Sequence[Example]], names: Names) -> Iterator[Leak]:
    """Rows whose concept is not a name of any group of their split."""
    for split in (split for split in SPLITS if split in rows):
        for row in sorted(rows[split], key=lambda row: row.id):
            holders = names.holders.get(name_key(row.concept) or row.concept, {})
            if split not in holders:
                known = f"a name of {' and '.join(sorted(holders))}" if holders else "not a name of any group"
                strange = Row(split, row.id, _shown(row.request))
                yield Leak(f"{listed([strange])}: its concept '{row.concept}' is {known}", (strange,))


def _strange_requests(by_name: Mapping[Text, Sequence[DistinctText]], names: Names) -> Iterator[Leak]:
    """Requests that hold a name of another split's concept and none of their own."""
    for text, requests in by_name.items():
        holders = names.holders.get(name_key(text.phrases[0]), {})
        if text.own < 1 and holders and text.split not in holders:
            for rows in map(_rows, requests):
                known = " and ".join(sorted(holders))
                yield Leak(f"{listed(rows)}: '{rows[0].text}' asks for a name of {known}", tuple(rows))


def label_sections(contract: Contract) -> frozenset[str]:
    """The sections whose values are fixed or chosen from a few."""
    return frozenset(section.name for section in contract.sections if isinstance(section.kind, Choice | Fixed))


def _same(name: str, texts: Sequence[DistinctText], labelled: frozenset[str] = frozenset()) -> Check:
    """Texts that differ only in case, blanks and punctuation; those in `labelled` are allowed."""
    first: dict[str, DistinctText] = {}
    leaks = []
    for text in texts:
        other = first.setdefault(_plain(text), text)
        if other.split != text.split and text.text not in labelled:
            rows = [*_rows(other), *_rows(text)]
            leaks.append(Leak(f"the same {name} in {listed(rows)}: '{rows[-1].text}'", tuple(rows)))
    return _checked(f"same {name}s", len(texts), leaks)


def _near(name: str, texts: Mapping[Text, Sequence[DistinctText]], measure: Measure) -> Check:
    """Texts that are nearly the same; those that `_same` names are left out."""
    keys, places = list(texts), list(texts.values())
    found = near_pairs(keys, measure)

    def pair(one: int, other: int) -> tuple[DistinctText, DistinctText]:
        """Of all texts with the same shingles as these two, the two most alike: a copy and its source."""
        ones, others = ([text for n in found.alike[index] for text in places[n]] for index in (one, other))
        last = max(others, key=lambda text: _likeness(ones[0], text))
        return max(ones, key=lambda text: _likeness(text, last)), last

    leaks = []
    for degree, one, other in found.near:
        first, second = pair(one, other)
        if _plain(first) != _plain(second):
            rows = [*_rows(first), *_rows(second)]
            texts_shown = f"'{_shown(first.text)}', '{_shown(second.text)}'"
            leaks.append(Leak(f"{name} {degree:.2f} alike in {listed(rows)}: {texts_shown}", tuple(rows)))
    count = found.count - (len(found.near) - len(leaks))
    closest = None
    for degree, one, other in found.closest:
        first, second = (_rows(text)[0] for text in pair(one, other))
        closest = Closest(round(degree, 4), min(keys[one].own, keys[other].own) < 1, (first, second))
    return Check(f"near {name}", len(keys), count, tuple(leaks[:_LISTED]), measure, closest)


def _checked(name: str, compared: int, leaks: Iterable[Leak]) -> Check:
    found = list(leaks)
    return Check(name, compared, len(found), tuple(found[:_LISTED]))


def _plain(text: DistinctText) -> str:
    return " ".join(phrases(text.text)) or text.text


def _likeness(one: DistinctText, other: DistinctText) -> float:
    return similarity(phrases(one.text), phrases(other.text), RESPONSES)


def _rows(text: DistinctText) -> list[Row]:
    return [Row(text.split, row, _shown(text.text)) for row in text.ids]


def _shown(text: str) -> str:
    return shorten(" ".join(text.split()), _TEXT)


def certify_folder(folder: Path) -> Certificate:
    """The certificate of a dataset folder, made again from its files."""
    contract = load_contract(folder / "task.toml")
    concepts = _read_concepts(folder / "concepts.json")
    return certify(read_splits(folder, contract), concepts, label_sections(contract))


def _read_concepts(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        concepts = json.loads(path.read_text(encoding="utf-8"))
        read_names(concepts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: expected the groups of each split with their names; make the dataset again") from None
    return concepts
