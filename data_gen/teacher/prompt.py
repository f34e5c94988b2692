"""Fact + composed row -> the teacher's prompt: messages, the answer's JSON Schema, sampling options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from contract.base import Message
from contract.contract import Contract, Section
from contract.example import Example
from contract.kinds import Choice, Fixed, Items, Pairs
from data_gen.compose.split import draw
from data_gen.facts import Fact

VERSION = 1  # raise it with every change of the checks; a change of the prompt or the options is detected
# One context for all rows: another one would make Ollama load the model again.  The prompt takes about 700 tokens.
OPTIONS = {"temperature": 0.7, "num_ctx": 4096, "num_predict": 1024}
TASK = "You write teaching material from given facts. You answer with one JSON object and nothing else."
RULES = (
    "Use only these facts; add nothing from elsewhere, even if it is true.",
    "State no number, percentage or range that the facts do not hold.",
    "Put it into your own words, in whole sentences; do not copy the facts sentence by sentence.",
    "Write about the subject; never address the reader, never give advice, instructions or doses.",
    "Plain text: no headings, no Markdown, no lists inside a text, no line breaks.",
    "Whatever form the request asks for, this form is the right one.",
)


def taught_sections(contract: Contract) -> tuple[Section, ...]:
    """The sections that the teacher writes.  A fixed text and a choice have one right value, which is composed."""
    return tuple(section for section in contract.sections if not isinstance(section.kind, Fixed | Choice))


def answer_schema(contract: Contract) -> dict[str, Any]:
    """JSON Schema of the taught sections, for Ollama's `format`.

    Without the kinds' patterns: llama.cpp does not know `\\S`, and accepts any text for it or, in older versions, an S.
    """
    properties = {section.name: without_patterns(section.kind.json_schema()) for section in taught_sections(contract)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def without_patterns(schema: Any) -> Any:
    """The schema with "no empty text" instead of every pattern; a property with the name pattern stays.

    >>> without_patterns({"type": "array", "items": {"type": "string", "pattern": "^a$"}})
    {'type': 'array', 'items': {'type': 'string', 'minLength': 1}}
    """
    if not isinstance(schema, dict):
        return schema
    kept = {key: without_patterns(value) for key, value in schema.items() if key not in ("pattern", "properties")}
    if "properties" in schema:
        kept["properties"] = {name: without_patterns(value) for name, value in schema["properties"].items()}
    return kept | ({"minLength": 1} if "pattern" in schema else {})


def facts(fact: Fact) -> dict[str, str]:
    """All that an answer may use, by label."""
    texts = {name: " ; ".join(_flat(value)) for name, value in fact.texts.items()}
    names = {
        "stands for": fact.expansion,
        "other names": ", ".join([*fact.aliases, *([fact.same_as] if fact.same_as else [])]),
        "can also stand for": ", ".join(fact.other_senses),
    }
    return texts | {label: text for label, text in names.items() if text}


def messages(
    contract: Contract,
    fact: Fact,
    draft: Example,
    keywords: list[str],
    named: Section | None,
    faults: Iterable[str] = (),
) -> list[Message]:
    """The turns.  `named` is the section that must name the concept; `faults` are those of earlier, refused answers.

    A refused answer itself is not shown, because small models repeat what they see.
    """
    rules = list(RULES)
    if named:
        rules.append(f'Name "{fact.concept}" in {named.name}.')
    if keywords:
        rules.append(f"Use each of these words as it stands: {', '.join(keywords)}.")
    given = [section for section in contract.sections if section not in taught_sections(contract)]
    written = [f"{section.title}: {draft.record[section.name]}" for section in given]
    parts = [
        f"A student asks: {draft.request}",
        f"Facts about {fact.concept}:\n" + _list(f"{label}: {text}" for label, text in facts(fact).items()),
        "The keys of your JSON object:\n"
        + _list(f"{s.name} ({s.title}): {form(s)}" for s in taught_sections(contract)),
        "Rules:\n" + _list(rules),
    ]
    if written:
        parts.append("These sections are there already; do not repeat them:\n" + _list(written))
    if refused := list(dict.fromkeys(faults)):
        parts.append(f"Earlier answers were refused:\n{_list(refused)}\nWrite a new one without these faults.")
    return [{"role": "system", "content": f"{TASK} {contract.about}"}, {"role": "user", "content": "\n\n".join(parts)}]


def form(section: Section) -> str:
    """The section's rule in the kind's own words, without the marks of lines, which contract.write adds."""
    rule = section.kind.describe()
    if isinstance(section.kind, Items):
        return f"{rule}; here as a JSON array of texts without the mark"
    if isinstance(section.kind, Pairs):
        return f"{rule}; here as a JSON array of objects with the keys {', '.join(section.kind.labels)}"
    return rule


def body(model: str, turns: list[Message], schema: dict[str, Any], row: str, attempt: int) -> dict[str, Any]:
    """The request to /api/chat.  Row and attempt decide the seed, so that a run can be repeated."""
    seed = draw("teacher", row, attempt) % 2**31
    return {
        "model": model, "messages": turns, "format": schema, "stream": False, "think": False, "keep_alive": "10m",
        "truncate": False, "shift": False,  # what is too long for the context is an error, not silently cut
        "options": OPTIONS | {"seed": seed},
    }  # fmt: skip


def _flat(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {text}" for key, item in value.items() for text in _flat(item)]
    return [text for item in value for text in _flat(item)] if isinstance(value, list | tuple) else [str(value)]


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
