"""Contracts and records for property tests: the shipped tasks, the next three tasks' forms, and generated ones."""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import reject, settings
from hypothesis import strategies as st

from contract.contract import TASKS, Contract, Record, load_contract
from contract.kinds import Choice, Fixed, Items, Kind, Pairs, Prose
from plumbing.errors import UserError

# No deadline on shared machines; the same examples in every run, so that a red test stays red until it is mended.
settings.register_profile("medical_mistral", deadline=None, derandomize=True)
settings.load_profile("medical_mistral")

SOAP = """
name = "soap"
about = "You write SOAP notes."
heading = "{title}: "
separator = "\\n"
section = [
  {name = "s", title = "S", kind = "prose", max_words = 40},
  {name = "o", title = "O", kind = "prose", max_words = 40},
  {name = "a", title = "A", kind = "items", max_items = 5},
  {name = "p", title = "P", kind = "items", min_items = 2, max_items = 4},
]
"""
FLASHCARDS = """
name = "cards"
about = "You write flashcards."
heading = "## {title}"
separator = "\\n\\n"
section = [
  {name = "topic", title = "Topic of the cards", kind = "prose", max_words = 8},
  {name = "cards", title = "Cards", kind = "pairs", labels = ["Q", "A"], min_items = 2, max_items = 6},
]
"""
PUBMEDQA = """
name = "pubmedqa"
about = "You answer from an abstract."
heading = "{title}: "
separator = "\\n\\n"
section = [
  {name = "reason", title = "Reasoning", kind = "prose", min_words = 3, max_words = 90},
  {name = "answer", title = "Answer", kind = "choice", options = ["yes", "no", "maybe"]},
  {name = "note", title = "Note", kind = "fixed", text = 'Not "medical advice" \\ ask a doctor.'},
]
"""

# Words that look like syntax: headings, marks, control tokens, quotes, digits.
TRICKY = [
    "**Note**:",
    "Note:",
    "S:",
    "Q:",
    "-",
    "**",
    '"',
    "\\",
    "[INST]",
    "</s>",
    "{{.System}}",
    "{title}",
    "##",
    "a\u200bb",
    "é",
    "😀",
]
words = st.sampled_from(TRICKY) | st.text(min_size=1, max_size=6).filter(lambda t: t.split() == [t] and "\0" not in t)


def load_text(toml: str) -> Contract:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.toml"
        path.write_text(toml, encoding="utf-8")
        return load_contract(path)


def lines(low: int = 1, high: int = 6) -> st.SearchStrategy[str]:
    return st.lists(words, min_size=low, max_size=high).map(" ".join)


titles = st.text(string.ascii_letters, min_size=1, max_size=6) | st.sampled_from(
    ["Clinical Relevance", "Q & A", "Œdème", "50%"]
)


@st.composite
def sections(draw: st.DrawFn, name: str, title: str) -> dict[str, Any]:
    low = draw(st.integers(1, 3))
    high = low + draw(st.integers(0, 4))
    form = draw(
        st.sampled_from(
            [
                {"kind": "prose", "min_words": low, "max_words": high},
                {"kind": "items", "min_items": low, "max_items": high},
                {"kind": "pairs", "min_items": low, "max_items": high, "labels": ["Frage", "Antwort"]},
                {"kind": "choice", "options": ["yes", "no", 'may"be']},
                {"kind": "fixed", "text": "Ask \\ a doctor: **Note**:"},
            ]
        )
    )
    return {"name": name, "title": title} | form


@st.composite
def generated(draw: st.DrawFn) -> Contract:
    chosen = draw(st.lists(titles, min_size=1, max_size=5, unique=True))
    rows = [draw(sections(f"s{n}", title)) for n, title in enumerate(chosen)]
    heading = draw(st.sampled_from(["**{title}**: ", "{title}: ", "## {title}:", "[{title}]  ", "{title} > "]))
    head = {"name": "g", "about": "You answer.", "heading": heading, "separator": draw(st.sampled_from(["\n", "\n\n"]))}
    body = "".join("[[section]]\n" + _table(row) for row in rows)
    try:
        return load_text(_table(head) + body)
    except UserError:  # a title that looks like a mark or like another's beginning
        reject()


def _table(row: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in row.items())


SHIPPED = [load_contract(path.stem) for path in sorted(TASKS.glob("*.toml"))]
FORMS = [*SHIPPED, load_text(SOAP), load_text(FLASHCARDS), load_text(PUBMEDQA)]
contracts = st.sampled_from(FORMS) | generated()


def values(kind: Kind) -> st.SearchStrategy[Any]:
    """What `kind` takes, at both ends of its bounds and between."""
    match kind:
        case Prose(min_words=low, max_words=high):
            return st.sampled_from([low, high, (low + high) // 2]).flatmap(
                lambda n: st.lists(words, min_size=min(n, 4), max_size=4).map(lambda w: " ".join((w * n)[:n]))
            )
        case Items(min_items=low, max_items=high):
            return st.lists(lines(), min_size=low, max_size=min(high, low + 3))
        case Pairs(labels=labels, min_items=low, max_items=high):
            pair = st.fixed_dictionaries({label: lines() for label in labels})
            return st.lists(pair, min_size=low, max_size=min(high, low + 2))
        case Choice(options=options):
            return st.sampled_from(options)
        case Fixed(text=text):
            return st.just(text)


def records(contract: Contract) -> st.SearchStrategy[Record]:
    return st.fixed_dictionaries({section.name: values(section.kind) for section in contract.sections})


@st.composite
def written(draw: st.DrawFn) -> tuple[Contract, Record, str]:
    """A contract, a record of it and its text."""
    contract = draw(contracts)
    record = draw(records(contract))
    return contract, record, contract.write(record)
