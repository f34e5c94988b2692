"""Contract + examples -> the answers of baselines, which know the form and nothing else.

They are judged like any model.  A figure in which a real model does not beat them says nothing about that model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contract.contract import Contract, Record
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Kind, Pairs, Prose

# Words without a meaning for any request, as many as a section needs.
NOTHING = (
    "here some words stand in their place so that there is text to be seen while none of them tells you what you came "
    "to find out"
)


def baselines(contract: Contract, examples: Sequence[Example]) -> Mapping[str, list[str]]:
    """The baselines by name, each with its answer to every example, in order.

    empty sections: every heading with the least text that keeps the form.  copy of the request: its words, once in every
    section.  majority class (where there is a choice): empty sections and the option that most of these examples have,
    the best that a constant answer can reach.  another concept: the expected answer of the next other concept.
    """
    found = {
        "empty sections": [_write(contract, _empty(contract))] * len(examples),
        "copy of the request": [_write(contract, _copy(contract, example.request)) for example in examples],
    }
    if any(isinstance(section.kind, Choice) for section in contract.sections):
        found["majority class"] = [_majority(contract, examples)] * len(examples)
    if len({example.concept for example in examples}) > 1:
        found["another concept"] = [examples[other].response for other in _others(examples)]
    return found


def _empty(contract: Contract) -> Record:
    """The least text that keeps the form.  Each text begins at another word, so that no two lines of a list are equal."""
    return {
        section.name: _least(section.kind, lambda words, number, place=place: _nothing(words, 5 * place + number))
        for place, section in enumerate(contract.sections)
    }


def _copy(contract: Contract, request: str) -> Record:
    line = " ".join(request.split())
    return {section.name: _least(section.kind, lambda words, number: line) for section in contract.sections}


def _least(kind: Kind, text: Callable[[int, int], str]) -> Any:
    """The smallest value of `kind`, made of `text(words, number)`; for a choice its first option."""
    match kind:
        case Prose(min_words=words):
            return text(words, 0)
        case Items(min_items=items):
            return [text(3, n) for n in range(items)]
        case Pairs(labels=labels, min_items=items):
            return [{label: text(3, 2 * n + m) for m, label in enumerate(labels)} for n in range(items)]
        case Choice(options=options):
            return options[0]
        case Fixed(text=fixed):
            return fixed


def _nothing(words: int, start: int) -> str:
    """A sentence of so many words of NOTHING, from word `start`."""
    source = NOTHING.split()
    text = " ".join(source[(start + n) % len(source)] for n in range(words))
    return text[0].upper() + text[1:] + "."


def _majority(contract: Contract, examples: Sequence[Example]) -> str:
    record = _empty(contract)
    for section in contract.sections:
        if isinstance(section.kind, Choice):
            votes = Counter(example.record[section.name] for example in examples)
            record[section.name] = max(section.kind.options, key=votes.__getitem__)
    return _write(contract, record)


def _write(contract: Contract, record: Record) -> str:
    """As `contract.write`, but a value may be too long or too short: a copied request often is."""
    parts = [contract.head(s) + contract.gap(s) + s.kind.write(record[s.name]) for s in contract.sections]
    return contract.separator.join(parts)


def _others(examples: Sequence[Example]) -> list[int]:
    """For each example the index of the next one about another concept; after the last comes the first."""
    n = len(examples)
    following = [0] * n
    for place in reversed(range(2 * n)):
        here, after = place % n, (place + 1) % n
        following[here] = after if examples[after].concept != examples[here].concept else following[after]
    return following
