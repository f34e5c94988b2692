"""Leaks to plant in a clean dataset: each gives the name of the check that must find it and the rows it must name."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from contract.example import Example

Rows = dict[str, list[Example]]
Concepts = dict[str, list[dict[str, Any]]]
Plant = Callable[[Rows, Concepts], tuple[str, list[str]]]


def first_of(rows: Rows, concepts: Concepts, split: str, group: dict[str, Any]) -> Example:
    return min((row for row in rows[split] if row.concept.lower() in group["names"]), key=lambda row: row.id)


def put(rows: Rows, split: str, number: int, **changed: Any) -> str:
    rows[split][number] = replace(rows[split][number], **changed)
    return rows[split][number].id


def source(rows: Rows, split: str = "train") -> Example:
    return rows[split][len(rows[split]) // 2]


def few_words_changed(text: str, share: float = 0.1) -> str:
    draw = random.Random(5)
    words = sorted({word for word in re.findall(r"[a-z]{5,}", text)})
    return re.sub(r"[A-Za-z]+", lambda word: draw.choice(words) if draw.random() < share else word[0], text)


def sentences_reordered(text: str) -> str:
    def backwards(part: str) -> str:
        heading, mark, prose = part.partition("**: ")
        return heading + mark + " ".join(reversed(re.split(r"(?<=\.) ", prose)))

    return "\n\n".join(map(backwards, text.split("\n\n")))


def a_concept(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    group = concepts["train"][7]
    concepts["test"].append(group)
    return "names", [first_of(rows, concepts, "train", group).id]


def an_alias(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    group, other = (
        next(g for g in concepts["train"] if "oedema" in g["names"] or len(g["names"]) > 2),
        concepts["test"][3],
    )
    alias = next(name for name in group["names"] if name != group["group"])
    other["names"].append(f" {alias.upper()}s")
    return "names", [first_of(rows, concepts, s, g).id for s, g in (("train", group), ("test", other))]


def an_expansion(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    short = {row.concept.lower() for row in rows["validation"] if row.category == "abbreviations"}
    group = next(g for g in concepts["validation"] if short & set(g["names"]) and g["group"] not in short)
    other = concepts["train"][0]
    other["names"].append(group["group"].replace(" ", "-"))
    return "names", [first_of(rows, concepts, s, g).id for s, g in (("train", other), ("validation", group))]


def a_row_of_another_split(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    rows["test"].append(replace(source(rows), id="moved/1", request="a request of its own", response="Its own."))
    return "concepts", ["moved/1"]


def a_row_of_no_group(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    return "concepts", [put(rows, "train", 11, concept="no such concept")]


def a_trained_alias_asked_for(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    said = {row.concept.lower() for row in rows["train"]}
    alias = next(n for g in concepts["train"] for n in g["names"] if n not in said and n.count(" ") == 1)
    return "concepts", [put(rows, "test", 0, request=f"could you explain {alias} pls")]


def a_request(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    return "same requests", [put(rows, "test", 5, request=source(rows).request), source(rows).id]


def a_request_in_other_dress(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    words = re.findall(r"\w+", source(rows, "validation").request.upper())
    return "same requests", [put(rows, "test", 5, request="  ".join(words) + " ?!"), source(rows, "validation").id]


def a_response(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    return "same responses", [put(rows, "test", 9, response=source(rows).response), source(rows).id]


def a_response_in_other_dress(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    text = source(rows).response.lower().replace("**", "").replace("\n\n", "\n").replace(", ", " ")
    return "same responses", [put(rows, "validation", 9, response=text), source(rows).id]


def a_misspelled_request(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    trained = next(row for row in rows["train"] if len(row.concept) > 10 and row.concept.isalpha())
    name = trained.concept[:4] + trained.concept[5] + trained.concept[4] + trained.concept[6:]
    put(rows, "train", rows["train"].index(trained), request=f"What is {trained.concept}?")
    return "near requests", [put(rows, "test", 3, request=f"What is {name}?"), trained.id]


def a_slightly_longer_request(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    trained = next(row for row in rows["train"] if len(row.concept) > 10 and row.concept.isalpha())
    return "near requests", [put(rows, "validation", 3, request=f"What is general {trained.concept}?")]


def a_long_request(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    passage = source(rows).record["explanation"] + " " + source(rows).record["definition"]
    ids = [put(rows, "train", 2, request=f"{passage} What is {rows['train'][2].concept}?")]
    said = f"{few_words_changed(passage)} What is {rows['test'][2].concept}?"
    return "near long requests", [*ids, put(rows, "test", 2, request=said)]


def a_response_with_words_changed(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    return "near responses", [put(rows, "test", 20, response=few_words_changed(source(rows).response)), source(rows).id]


def a_response_reordered(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    return "near responses", [
        put(rows, "test", 20, response=sentences_reordered(source(rows).response)),
        source(rows).id,
    ]


def a_response_changed_and_reordered(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    made = sentences_reordered(few_words_changed(source(rows, "validation").response))
    return "near responses", [put(rows, "test", 20, response=made), source(rows, "validation").id]


def a_response_under_another_name(rows: Rows, concepts: Concepts) -> tuple[str, list[str]]:
    text = re.sub(re.escape(source(rows).concept), rows["test"][30].concept, source(rows).response, flags=re.IGNORECASE)
    return "near responses", [put(rows, "test", 30, response=text), source(rows).id]


PLANTS = [
    a_concept, an_alias, an_expansion, a_row_of_another_split, a_row_of_no_group, a_trained_alias_asked_for,
    a_request, a_request_in_other_dress, a_response, a_response_in_other_dress, a_misspelled_request,
    a_slightly_longer_request, a_long_request, a_response_with_words_changed, a_response_reordered,
    a_response_changed_and_reordered, a_response_under_another_name,
]  # fmt: skip
