"""A dataset's rows and facts -> README.md, its Hugging Face dataset card (wording: card.md.jinja).

Every figure in it is computed here from the rows and facts; the card embeds the files that data_gen/pictures.py draws.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.contract import Contract
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Kind, Pairs
from data_gen.compose.dataset import Dataset, by_category
from data_gen.facts import Fact
from plumbing.templates import render
from plumbing.wording import texts_of

TEMPLATE = Path(__file__).with_name("card.md.jinja")
SCORED = 2000  # texts at most that readability is measured on: half a millisecond each
DEFAULTS = {"licence": "unknown", "language": "", "tags": [], "attribution": False, "teacher": ""}
_SIZES = {"n<1K": 0, "1K<n<10K": 1_000, "10K<n<100K": 10_000, "100K<n<1M": 100_000, "1M<n<10M": 1_000_000}
_STYLE = re.compile(r"(\w+)-\d+")  # the last part of a row's id: style-number


def card(
    contract: Contract, dataset: Dataset, facts: Sequence[Fact], certificate_line: str, origin: Mapping[str, Any]
) -> str:
    """The card's text.  Of `facts`, only those count that a row was made from (a row's id is FACT_ID/STYLE-NUMBER).

    `origin` needs command, task, seed and sha256 (of the dataset).  It may hold licence (of the texts, as the Hub
    spells it), language (a code such as en), tags, and attribution (whether ATTRIBUTION.md and licences/ are beside the
    card); whatever else it holds is listed.  A missing key raises jinja2.UndefinedError.
    """
    origin = DEFAULTS | dict(origin)
    rows = [row for members in dataset.values() for row in members]
    ids = {row.id.rpartition("/")[0] for row in rows}
    used = [fact for fact in facts if fact.id in ids]
    return render(TEMPLATE, {
        "front_matter": front_matter(contract, dataset, origin), "title": _title(contract), "contract": contract,
        "origin": origin, "medical": "medical" in origin["tags"], "certificate_line": certificate_line,
        "rows": len(rows), "concepts": len({row.concept for row in rows}), "example": rows[0],
        "example_json": json.dumps(vars(rows[0]), ensure_ascii=False, indent=2), "splits": list(dataset),
        "categories": by_category(dataset), "styles": styles(rows), "prompted": sum(row.system != "" for row in rows),
        "lengths": lengths(contract, rows), "readability": readability(contract, rows),
        "facts": len(used), "reviewed": sum(fact.reviewed for fact in used),
        "unsourced": sum(not fact.sources for fact in used), "sources": sources(used), "licences": licences(used),
    })  # fmt: skip


def front_matter(contract: Contract, dataset: Dataset, origin: Mapping[str, Any]) -> str:
    """The card's YAML: what the Hub shows and what `load_dataset` reads."""
    from huggingface_hub import DatasetCardData

    rows = [row for members in dataset.values() for row in members]
    tags = ["synthetic", "structured-output", "education", *origin["tags"], *sorted({row.category for row in rows})]
    return DatasetCardData(
        pretty_name=_title(contract),
        license=origin["licence"],
        language=[origin["language"]] if origin["language"] else None,
        task_categories=["text-generation"],
        size_categories=[size_category(len(rows))],
        tags=list(dict.fromkeys(tag.replace("_", "-") for tag in tags)),
        configs=[{"config_name": "default", "data_files": [{"split": s, "path": f"{s}.jsonl"} for s in dataset]}],
        dataset_info={"config_name": "default", "features": columns(contract)},
    ).to_yaml()


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows.

    >>> size_category(999), size_category(3000)
    ('n<1K', '1K<n<10K')
    """
    return [name for name, least in _SIZES.items() if rows >= least][-1]


def columns(contract: Contract) -> list[dict[str, Any]]:
    """The columns of a row, as `dataset_info.features` spells them.

    All are text, except the keywords (a list of text) and the record (a struct by the sections' kinds).  Categories and
    choices stay text too, as `load_dataset("json")` reads them; they are not a ClassLabel.
    """
    types = {field.name: {"dtype": "string"} for field in dataclasses.fields(Example)} | {
        "record": {"struct": [{"name": section.name} | _type(section.kind) for section in contract.sections]},
        "keywords": {"list": "string"},
    }
    return [{"name": name, **of} for name, of in types.items()]


def _type(kind: Kind) -> dict[str, Any]:
    if isinstance(kind, Pairs):
        return {"list": [{"name": label, "dtype": "string"} for label in kind.labels]}
    return {"list": "string"} if isinstance(kind, Items) else {"dtype": "string"}


def styles(rows: Iterable[Example]) -> list[tuple[str, int]]:
    """Rows by the style of their request, as the row's id names it; empty if there is only one style."""
    matches = (_STYLE.fullmatch(row.id.rpartition("/")[2]) for row in rows)
    counts = Counter(match[1] if match else "" for match in matches)
    return [(name or "(not named)", n) for name, n in sorted(counts.items())] if len(counts) > 1 else []


def lengths(contract: Contract, rows: Sequence[Example]) -> list[tuple[str, list[str]]]:
    """Words of responses, of each section and of requests; only responses count headings and list marks."""
    named = {"response": [len(row.response.split()) for row in rows]}
    for section in contract.sections:
        values = (row.record[section.name] for row in rows)
        named[f"section {section.title}"] = [sum(len(text.split()) for text in texts_of(value)) for value in values]
    named["request"] = [len(row.request.split()) for row in rows]
    return [(name, spread(numbers, "g")) for name, numbers in named.items()]


def spread(numbers: Sequence[float], form: str) -> list[str]:
    """Minimum, median, mean and maximum; the mean always with one digit behind the point.

    >>> spread([1, 2, 4, 6], "g")
    ['1', '3', '3.2', '6']
    """
    import statistics

    whole = (min(numbers), statistics.median(numbers), max(numbers))
    low, middle, high = (format(number, form) for number in whole)
    return [low, middle, format(statistics.fmean(numbers), ".1f"), high]


def readability(contract: Contract, rows: Sequence[Example]) -> dict[str, Any]:
    """textstat's scores over the first row of each concept, SCORED concepts at most, evenly chosen; {} for no prose.

    Only the record's texts are scored: no headings, no fixed or chosen answers.
    """
    import textstat

    names = [section.name for section in contract.sections if not isinstance(section.kind, Fixed | Choice)]
    if not names:
        return {}
    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(row.concept, row)
    chosen = list(first.values())[:: -(-len(first) // SCORED)]
    texts = [" ".join(_sentences(row.record[name] for name in names)) for row in chosen]
    measures = {
        "Flesch reading ease": textstat.flesch_reading_ease,
        "Flesch-Kincaid grade": textstat.flesch_kincaid_grade,
    }
    scores = [(name, spread([measure(text) for text in texts], ".1f")) for name, measure in measures.items()]
    return {"texts": len(texts), "scores": scores}


def _sentences(values: Iterable[Any]) -> Iterator[str]:
    """The texts of the values, each ended by a mark, so that a list does not count as one long sentence."""
    for text in texts_of(list(values)):
        yield text if text.endswith((".", "!", "?")) else f"{text}."


def sources(facts: Iterable[Fact]) -> list[tuple[str, str, int]]:
    """Source, licence and number of facts that name it, the most used first."""
    counts = Counter(source for fact in facts for source in _sources(fact))
    return [(*source, count) for source, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def licences(facts: Iterable[Fact]) -> list[tuple[str, int]]:
    """Licence of sources and number of facts with such a source."""
    return sorted(Counter(licence for fact in facts for licence in {licence for _, licence in _sources(fact)}).items())


def _sources(fact: Fact) -> set[tuple[str, str]]:
    return {(source.get("name", "(not named)"), source.get("licence", "(not stated)")) for source in fact.sources}


def _title(contract: Contract) -> str:
    name = contract.name.replace("_", " ").strip()
    return f"{name[:1].upper()}{name[1:]}: answers in {len(contract.sections)} fixed sections"
