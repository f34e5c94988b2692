"""A dataset's rows and facts -> README.md, its Hugging Face dataset card (the wording: card.md.jinja).

Every figure in it is computed here from what is passed in; the card embeds the files that data_gen/pictures.py draws.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from contract.contract import Contract
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Kind, Pairs
from data_gen.facts import Fact

TEMPLATE = "card.md.jinja"
SCORED = 2000  # texts at most that readability is measured on: half a millisecond each
MADE = {
    "licence": "unknown",
    "language": "",
    "tags": [],
    "attribution": False,
    "teacher": "",
}  # what `made` may leave out
_SIZES = (1_000, 10_000, 100_000, 1_000_000)  # the bounds of the Hub's size categories
_STYLE = re.compile(r"(\w+)-\d+")  # the last part of a row's id: style-number
Shape = str | list[Any] | dict[str, Any]  # of a value: a dtype, [of the elements], {field: of its value}


def card(
    contract: Contract,
    dataset: Mapping[str, Sequence[Example]],
    facts: Sequence[Fact],
    certificate_line: str,
    made: Mapping[str, Any],
) -> str:
    """The card's text.  Of `facts`, those count that a row was made from (a row's id is FACT_ID/STYLE-NUMBER).

    `made` needs command, task, seed and sha256 (of the dataset).  It may hold licence (of the texts, as the Hub spells
    it), language (a code such as en), tags, and attribution (whether ATTRIBUTION.md and licences/ stand beside the
    card); whatever else it holds is listed.  A missing key raises jinja2.UndefinedError.
    """
    import jinja2

    made = {**MADE, **made}
    rows = [row for members in dataset.values() for row in members]
    ids = {row.id.rpartition("/")[0] for row in rows}
    used = [fact for fact in facts if fact.id in ids]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    environment.filters |= {"cell": _cell, "fenced": _fenced}
    return environment.get_template(TEMPLATE).render(
        front_matter=front_matter(contract, dataset, made),
        title=_title(contract), contract=contract, made=made, certificate_line=certificate_line,
        rows=len(rows), concepts=len({row.concept for row in rows}), example=_example(dataset),
        splits=list(dataset), categories=categories(dataset), styles=styles(rows),
        prompted=sum(row.system != "" for row in rows), lengths=lengths(contract, rows), reading=readability(contract, rows),
        facts=len(used), reviewed=sum(fact.reviewed for fact in used), unsourced=sum(not fact.sources for fact in used),
        sources=sources(used), licences=licences(used),
    )  # fmt: skip


def front_matter(contract: Contract, dataset: Mapping[str, Sequence[Example]], made: Mapping[str, Any]) -> str:
    """The card's YAML: what the Hub shows and what `load_dataset` goes by."""
    import yaml

    rows = [row for members in dataset.values() for row in members]
    tags = ["synthetic", "structured-output", "education", *made["tags"], *sorted({row.category for row in rows})]
    fields = {
        "pretty_name": _title(contract),
        "license": made["licence"],
        **({"language": [made["language"]]} if made["language"] else {}),
        "task_categories": ["text-generation"],
        "size_categories": [size_category(len(rows))],
        "tags": list(dict.fromkeys(tag.replace("_", "-") for tag in tags)),
        "configs": [{"config_name": "default", "data_files": [{"split": s, "path": f"{s}.jsonl"} for s in dataset]}],
        "dataset_info": {"config_name": "default", "features": _columns(shape(contract))},
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def size_category(rows: int) -> str:
    """The Hub's name for so many rows.

    >>> size_category(999), size_category(3000)
    ('n<1K', '1K<n<10K')
    """
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
    return names[sum(rows >= bound for bound in _SIZES)]


def shape(contract: Contract) -> dict[str, Shape]:
    """The columns of a row: text, but for the keywords (a list of text) and the record (by the sections' kinds)."""
    columns: dict[str, Shape] = {field.name: "string" for field in dataclasses.fields(Example)}
    record: Shape = {section.name: _value_shape(section.kind) for section in contract.sections}
    return columns | {"record": record, "keywords": ["string"]}


def _value_shape(kind: Kind) -> Shape:
    if isinstance(kind, Pairs):
        return [dict.fromkeys(kind.labels, "string")]
    return ["string"] if isinstance(kind, Items) else "string"


def _columns(fields: Mapping[str, Shape]) -> list[dict[str, Any]]:
    """The shape as `dataset_info.features` spells it."""
    return [{"name": name, **_column(of)} for name, of in fields.items()]


def _column(of: Shape) -> dict[str, Any]:
    if isinstance(of, dict):
        return {"struct": _columns(of)}
    if isinstance(of, list):
        return {"list": _columns(of[0]) if isinstance(of[0], dict) else of[0]}
    return {"dtype": of}


def categories(dataset: Mapping[str, Sequence[Example]]) -> list[tuple[str, list[int]]]:
    """Each category, then all of them: rows and concepts of each split and of the whole dataset, in turn."""
    found: dict[str | None, list[tuple[Counter[str], set[str]]]] = {}
    names = sorted({row.category for rows in dataset.values() for row in rows})
    for name in [*names, None]:
        found[name] = [(Counter(), set()) for _ in range(len(dataset) + 1)]
    for number, rows in enumerate(dataset.values()):
        for row in rows:
            for counts, concepts in (found[name][n] for name in (row.category, None) for n in (number, -1)):
                counts["rows"] += 1
                concepts.add(row.concept)
    return [(name or "all", [n for counts, concepts in sides for n in (counts["rows"], len(concepts))])
            for name, sides in found.items()]  # fmt: skip


def styles(rows: Iterable[Example]) -> list[tuple[str, int]]:
    """Rows by the style of their request, as the row's id names it; none where there is but one."""
    matches = (_STYLE.fullmatch(row.id.rpartition("/")[2]) for row in rows)
    counts = Counter(match[1] if match else "" for match in matches)
    return [(name or "(not named)", n) for name, n in sorted(counts.items())] if len(counts) > 1 else []


def lengths(contract: Contract, rows: Sequence[Example]) -> list[tuple[str, list[str]]]:
    """Words of responses, of each section and of requests; headings and list marks count in responses alone."""
    named = {"response": [len(row.response.split()) for row in rows]}
    for section in contract.sections:
        named[f"section {section.title}"] = [_words(row.record[section.name]) for row in rows]
    named["request"] = [len(row.request.split()) for row in rows]
    return [(name, spread(numbers, "g")) for name, numbers in named.items()]


def _words(value: Any) -> int:
    if isinstance(value, str):
        return len(value.split())
    return sum(map(_words, value.values() if isinstance(value, dict) else value))


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

    What is scored is the record's text: no headings, no fixed or chosen answers.
    """
    import textstat

    first: dict[str, Example] = {}
    for row in rows:
        first.setdefault(row.concept, row)
    chosen = list(first.values())[:: -(-len(first) // SCORED)]
    names = [section.name for section in contract.sections if not isinstance(section.kind, Fixed | Choice)]
    texts = [" ".join(part for name in names for part in _sentences(row.record[name])) for row in chosen]
    if not names:
        return {}
    measures = {
        "Flesch reading ease": textstat.flesch_reading_ease,
        "Flesch-Kincaid grade": textstat.flesch_kincaid_grade,
    }
    table = [(name, spread([measure(text) for text in texts], ".1f")) for name, measure in measures.items()]
    return {"texts": len(texts), "table": table}


def _sentences(value: Any) -> Iterable[str]:
    """The texts of a section's value, each ended by a mark, so that a list is not taken for one long sentence."""
    if isinstance(value, str):
        yield value if value.endswith((".", "!", "?")) else f"{value}."
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from _sentences(part)


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


def _example(dataset: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """The first row: as a model sees it, and as it stands in the file."""
    row = next(row for rows in dataset.values() for row in rows)
    return {
        "request": row.request,
        "response": row.response,
        "row": json.dumps(vars(row), ensure_ascii=False, indent=2),
    }


def _cell(value: Any) -> str:
    """Text that stands in one cell of a Markdown table."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")


def _fenced(value: Any, language: str = "text") -> str:
    """A Markdown code block, its fence longer than any run of backticks in the text."""
    text = str(value)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
