"""A fact and a task's templates -> examples: request, record and response, checked by the contract."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from contract.contract import Contract, Record
from contract.example import Example
from contract.kinds import Fixed
from data_gen.compose.split import draw
from data_gen.compose.task_data import TaskData, fills, holes
from data_gen.facts import Fact
from plumbing.errors import UserError

ROWS_A_CONCEPT = 4  # the default: a request of each of four styles


def compose(contract: Contract, data: TaskData, fact: Fact, rows: int, seed: int) -> list[Example]:
    """`rows` examples about one fact, each with another request; styles take turns.

    Raises UserError if the contract refuses a value, or if there are fewer requests than rows.
    """
    fields = fact_fields(data, fact)
    requests = _requests(data, fact, fields, seed)
    if rows > len(requests):
        cure = "lower --count or add requests"
        raise UserError(f"fact '{fact.id}': {rows} rows for each fact but {len(requests)} requests: {cure}")
    options = _frames(contract, data, fact, fields)
    written: dict[tuple[str, ...], tuple[Record, str]] = {}  # rows of the same frames share one record
    examples = []
    for place, template in requests[:rows]:
        name = f"{fact.id}/{place}"
        chosen = tuple(frames[draw(seed, "frame", name, section) % len(frames)] for section, frames in options.items())
        if chosen not in written:
            written[chosen] = _written(contract, fact, fields, dict(zip(options, chosen, strict=True)))
        record, response = written[chosen]
        carries = draw(seed, "system", name) / 2**64 < data.system_share
        system = contract.system_prompt() if carries else ""
        text = render(template, fields)
        if not isinstance(text, str):
            raise UserError(f"template {template!r}: is only a list, and a request is a text")
        examples.append(Example(name, fact.concept, fact.category, text, system, record, response, fact.keywords))
    return examples


def quotas(names: Sequence[str], count: int) -> dict[str, int]:
    """`count` rows shared equally among the names, the first ones taking what does not divide.

    >>> quotas(["b", "a"], 5)
    {'a': 3, 'b': 2}
    """
    whole, rest = divmod(count, len(names))
    return {name: whole + (n < rest) for n, name in enumerate(sorted(names))}


def rows_each(facts: Sequence[Fact], count: int | None, each: int = ROWS_A_CONCEPT) -> dict[str, int]:
    """How many rows each fact gets so that `count` rows meet the category quotas exactly (None: `each` for all)."""
    if count is None:
        return {fact.id: each for fact in facts}
    by_category: dict[str, list[str]] = {}
    for fact in facts:
        by_category.setdefault(fact.category, []).append(fact.id)
    share = quotas(list(by_category), count)
    return {fact: rows for name, ids in by_category.items() for fact, rows in quotas(ids, share[name]).items()}


def fact_fields(data: TaskData, fact: Fact) -> dict[str, Any]:
    """The values that the templates may name.

    {Name} is the field `name` as the beginning of a sentence.  {name_mid} is a text in the middle of a sentence: its
    first letter is small if its first word is an article, or a name of the concept that is written small.
    {a_concept} is the concept with the article that one of its texts begins with: a kidney, the skin, edema.
    """
    category = data.category_names.get(fact.category, fact.category.replace("_", " "))
    own = {"concept": fact.concept, "a_concept": _with_article(fact), "category": category, "expansion": fact.expansion}
    listed = {"other_senses": _spoken(fact.other_senses, "or"), "keywords": _spoken(fact.keywords, "and")}
    fields = {name: value for name, value in {**fact.texts, **own, **listed}.items() if value}
    texts = {name: value for name, value in fields.items() if isinstance(value, str)}
    large = {_large(name): _large(value) for name, value in texts.items()}
    mid = {f"{name}_mid": small for name, value in texts.items() if (small := _mid(value, fact))}
    return fields | large | mid


def _with_article(fact: Fact) -> str:
    begins = re.compile(rf"(an? |the ){re.escape(fact.concept)}\b", re.IGNORECASE)
    found = (begins.match(text) for text in fact.texts.values() if isinstance(text, str))
    return next((match[1].lower() for match in found if match), "") + fact.concept


def _spoken(items: Sequence[str], last: str) -> str:
    """
    >>> _spoken(["a", "b", "c"], "and"), _spoken(["a", "b"], "or"), _spoken(["a"], "or"), _spoken([], "or")
    ('a, b and c', 'a or b', 'a', '')
    """
    return f" {last} ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def _large(text: str) -> str:
    """The text as the beginning of a sentence; a word with capitals inside stays as it is.

    >>> _large("acute pain"), _large("hCG stands for")
    ('Acute pain', 'hCG stands for')
    """
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    return text if word[1:] != word[1:].lower() else text[:1].upper() + text[1:]


def _mid(text: str, fact: Fact) -> str:
    """The text in the middle of a sentence; "" if its first word may be a name that keeps its capital."""
    if text.split(maxsplit=1)[0] in ("A", "An", "The"):
        return text[:1].lower() + text[1:]
    names = (name for name in (fact.concept, fact.expansion, *fact.aliases) if name)
    spelled = next((name for name in names if text.lower().startswith(name.lower())), "")
    return spelled + text[len(spelled) :] if spelled else ""


def _requests(data: TaskData, fact: Fact, fields: dict[str, Any], seed: int) -> list[tuple[str, str]]:
    """STYLE-NUMBER and template of the fact's requests: the styles take turns from one that the fact's id draws."""
    styles = []
    for style, templates in data.styles().items():
        filled = [template for template in templates if fills(template, fields)]
        filled.sort(key=lambda template: draw(seed, "request", fact.id, template))
        styles.append([(f"{style}-{number}", template) for number, template in enumerate(filled, 1)])
    first = draw(seed, "style", fact.id) % len(styles)
    turns = itertools.zip_longest(*styles[first:], *styles[:first])
    return [request for turn in turns for request in turn if request]


def _frames(contract: Contract, data: TaskData, fact: Fact, fields: dict[str, Any]) -> dict[str, list[str]]:
    """Section -> the templates that this fact fills; if it has other senses, only those that name them."""
    frames = {}
    for section in contract.sections:
        if isinstance(section.kind, Fixed):
            continue
        templates = data.sections[section.name]
        filled = [template for template in templates if fills(template, fields)]
        frames[section.name] = [template for template in filled if "other_senses" in holes(template)] or filled
        if not filled:
            raise UserError(
                f"fact '{fact.id}': no template of section '{section.name}' can be filled from it; "
                f"add the field that one of them names: {templates[0]!r}"
            )
    return frames


def _written(contract: Contract, fact: Fact, fields: dict[str, Any], chosen: dict[str, str]) -> tuple[Record, str]:
    fixed = {section.name: section.kind.text for section in contract.sections if isinstance(section.kind, Fixed)}
    values = fixed | {name: render(template, fields) for name, template in chosen.items()}
    record = {section.name: values[section.name] for section in contract.sections}
    try:
        return record, contract.write(record)
    except ValueError as error:
        raise UserError(f"fact '{fact.id}': {error}") from None


def render(template: str, fields: dict[str, Any]) -> Any:
    """A template filled from a fact's fields.  A template that is only a list's name gives the list itself."""
    names = holes(template)
    if names and template == f"{{{names[0]}}}":
        return fields[names[0]]
    if not all(isinstance(fields[name], str) for name in names):
        raise UserError(f"template {template!r}: names a field that holds a list, which must be the whole template")
    return template.format_map(fields)
