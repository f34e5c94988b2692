"""A dataset's rows and concepts -> the certificate that train, validation and test do not meet.

    python -m data_gen.certify artifacts/terminology/dataset [--json]

Proved are: no name of a concept stands in two splits, and every row is about a concept of its own split; no request
and no response stands in two splits; none nearly does.  Exit code 1 and one line that names the rows where two meet.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.contract import Contract, load_contract
from contract.example import SPLITS, Example, read_splits
from contract.kinds import Choice, Fixed
from data_gen.leaks.certificate import Certificate, Check, Closest, Leak, Row, check, listed
from data_gen.leaks.near_duplicates import Measure, Text, near_pairs, similarity
from data_gen.leaks.requests_by_name import Names, Said, asked, read_names, said, wordings
from data_gen.spelling import name_key, phrases
from plumbing.errors import UserError, run
from plumbing.handover import check_outputs, read_manifest

# Measured on the shipped dataset (2,880 rows about 666 groups).  Pairs of words: the closest responses of two splits
# have 0.20 (sensitivity, specificity), the next ones 0.14 and less.  With one word in ten changed a response keeps 0.45
# or more of itself, with one in five 0.42 at the median and 0.3 in 99 of 100, with its sentences reordered 1.
# Boilerplate is what more than 8 of the 666 groups say (more than 2 where there are few; a leak stands in 2): each frame
# stands in dozens, and with 5 or 40 for the 8 the closest pair has 0.18 or 0.22.  Two answers that share fewer than 8
# other pairs share a turn of phrase.  128 bands of 2 miss a pair at the limit once in 170,000 times, the shown closest
# one once in 200.
RESPONSES = Measure("words", everywhere=1 / 80, few=2, shared=8, limit=0.3, bands=128, rows=2)
# A request is compared as a whole where it says 20 words beside its templates' (an abstract, a dictation).
LONG = 20
LONG_REQUESTS = dataclasses.replace(RESPONSES, shared=LONG)
# Pairs of letters, of the name that a request asks for.  Of the shipped names of six letters or more 98 % keep 0.5 with
# one letter changed, left out, added or swapped, 85 % with two.  Names of two concepts reach that too (low and high
# density lipoprotein: 0.71): only a request that is nearer to another split's request than to the names of its own
# concept counts.  What half of many names contain ("patient" in "patient 17") tells nothing; fewer than 4 shared pairs
# are chance ("MS", "MI").  128 bands of 4 miss a pair at the limit once in 3,900 times.
REQUESTS = Measure("letters", everywhere=0.5, few=100, shared=4, limit=0.5, bands=128, rows=4)
_LISTED = 100  # leaks of each check that the certificate lists; all are counted
_TEXT = 80  # letters of a text that are shown


def certify(
    rows: Mapping[str, Sequence[Example]],
    concepts: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: frozenset[str] = frozenset(),
) -> Certificate:
    """Compare the splits.  `concepts` is the content of concepts.json: split -> [{group, names}].

    `labels` are sections of few possible values: a response of such sections alone may stand in every split.
    """
    names = read_names(concepts)
    count = sum(map(len, rows.values()))
    written = sum(len(entry["names"]) for groups in concepts.values() for entry in groups)
    requests, responses = said(rows, names, "request"), said(rows, names, "response")
    asks = asked(requests, names, REQUESTS)
    short = {text: those for text, those in asks.items() if text.phrases[0].count(" ") + 1 < LONG}
    long = [request for text, those in asks.items() if text not in short for request in those]
    checks = (
        _checked("names", written, _shared_names(names, requests)),
        _checked("concepts", count, [*_strange_concepts(rows, names), *_strange_requests(asks, names)]),
        _same("request", requests),
        _same("response", responses, _labelled(rows, labels)),
        _near("requests", short, REQUESTS),
        _near("long requests", wordings(long), LONG_REQUESTS),
        _near("responses", wordings(responses), RESPONSES),
    )
    return Certificate(
        clean=not any(check.found for check in checks),
        concepts=len({(split, row.concept) for split, examples in rows.items() for row in examples}),
        names=written,
        rows=count,
        checks=checks,
    )


def _shared_names(names: Names, requests: Sequence[Said]) -> Iterator[Leak]:
    """Names that two splits have, with the first row of each group."""
    first: dict[tuple[str, str], Said] = {}
    for request in requests:
        key = (request.split, request.group)
        first[key] = min(first.get(key, request), request, key=lambda text: text.ids)
    for _, holders in sorted(names.holders.items()):
        for one, other in itertools.combinations([split for split in SPLITS if split in holders], 2):
            rows = [_rows(first[key])[0] for split in (one, other) if (key := (split, holders[split][0])) in first]
            spelled = " and ".join(f"'{holders[split][1]}' in {split}" for split in (one, other))
            yield Leak(f"one name: {spelled} ({listed(rows) if rows else 'no row'})", tuple(rows))


def _strange_concepts(rows: Mapping[str, Sequence[Example]], names: Names) -> Iterator[Leak]:
    """Rows whose concept is no name of a group of their split."""
    for split in (split for split in SPLITS if split in rows):
        for row in sorted(rows[split], key=lambda row: row.id):
            holders = names.holders.get(name_key(row.concept) or row.concept, {})
            if split not in holders:
                known = f"a name of {' and '.join(sorted(holders))}" if holders else "no name of any group"
                strange = Row(split, row.id, _shown(row.request))
                yield Leak(f"{listed([strange])}: its concept '{row.concept}' is {known}", (strange,))


def _strange_requests(asks: Mapping[Text, Sequence[Said]], names: Names) -> Iterator[Leak]:
    """Requests that say no name of their own concept, but one of another split's."""
    for text, requests in asks.items():
        holders = names.holders.get(name_key(text.phrases[0]), {})
        if text.own < 1 and holders and text.split not in holders:
            for rows in map(_rows, requests):
                known = " and ".join(sorted(holders))
                yield Leak(f"{listed(rows)}: '{rows[0].text}' asks for a name of {known}", tuple(rows))


def label_sections(contract: Contract) -> frozenset[str]:
    """The sections whose values are fixed or chosen from a few."""
    return frozenset(section.name for section in contract.sections if isinstance(section.kind, Choice | Fixed))


def _labelled(rows: Mapping[str, Sequence[Example]], labels: frozenset[str]) -> frozenset[str]:
    """The responses that hold nothing but labels."""
    return frozenset(row.response for members in rows.values() for row in members if row.record.keys() <= labels)


def _same(name: str, texts: Sequence[Said], labelled: frozenset[str] = frozenset()) -> Check:
    """Texts that are equal but for case, blanks and punctuation; those in `labelled` may be."""
    first: dict[str, Said] = {}
    leaks = []
    for text in texts:
        other = first.setdefault(_plain(text), text)
        if other.split != text.split and text.text not in labelled:
            rows = [*_rows(other), *_rows(text)]
            leaks.append(Leak(f"one {name} in {listed(rows)}: '{rows[-1].text}'", tuple(rows)))
    return _checked(f"same {name}s", len(texts), leaks)


def _near(name: str, texts: Mapping[Text, Sequence[Said]], measure: Measure) -> Check:
    """Texts that are nearly the same; those that `_same` names are left out."""
    keys, places = list(texts), list(texts.values())
    found = near_pairs(keys, measure)

    def pair(one: int, other: int) -> tuple[Said, Said]:
        """Of all that say what the two texts say, the two most alike: a copy and its source."""
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


def _plain(text: Said) -> str:
    return " ".join(phrases(text.text)) or text.text


def _likeness(one: Said, other: Said) -> float:
    return similarity(phrases(one.text), phrases(other.text), RESPONSES)


def _rows(text: Said) -> list[Row]:
    return [Row(text.split, row, _shown(text.text)) for row in text.ids]


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else line[: _TEXT - 3] + "..."


def main() -> None:
    args = _parser().parse_args()
    folder = Path(args.folder)
    check_outputs(folder, read_manifest(folder, "dataset"))
    certificate = certify_folder(folder)
    if args.json:
        print(certificate.to_json(), end="")
    check(certificate)
    if not args.json:
        print(certificate.line())


def certify_folder(folder: Path) -> Certificate:
    """The certificate of a dataset folder's files, anew."""
    contract = load_contract(folder / "task.toml")
    concepts = _read_concepts(folder / "concepts.json")
    return certify(read_splits(folder, contract), concepts, label_sections(contract))


def _read_concepts(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        concepts = json.loads(path.read_text(encoding="utf-8"))
        read_names(concepts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{path}: wanted the groups of each split with their names; make the dataset again") from None
    return concepts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_gen.certify", description="Prove that the splits do not meet."
    )
    parser.add_argument("folder", help="a finished dataset folder, as `make dataset` writes it")
    parser.add_argument("--json", action="store_true", help="print the certificate in full")
    return parser


if __name__ == "__main__":
    run(main)
