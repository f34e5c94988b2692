"""Conversations with every awkward text in every place: served and trained prompts must be equal.

CONVERSATIONS: name -> messages; always the same, no name and no conversation twice.  conversations.toml has the texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from contract.base import Message
from plumbing.toml_file import read_toml


def turns(spelled: str, *texts: str) -> list[Message]:
    """Letters of roles (s system, u user, a assistant) and a text for each.

    >>> turns("ua", "One?", "1")
    [{'role': 'user', 'content': 'One?'}, {'role': 'assistant', 'content': '1'}]
    """
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[r], "content": text} for r, text in zip(spelled, texts, strict=True)]


# place -> the roles, the texts before and behind
_PLACES: dict[str, tuple[str, list[str], list[str]]] = {
    "user text": ("u", [], []),
    "system text": ("su", [], ["What is azotemia?"]),
    "earlier answer": ("uau", ["First?"], ["Second?"]),
}


def _corpus() -> dict[str, list[Message]]:
    """Every text in each of three places; every shape of turns; the medical requests, alone and asked again."""
    corpus = read_toml(Path(__file__).with_suffix(".toml"))
    found = [(name, turns(*shape)) for name, shape in corpus["turns"].items()]
    found += [(f"request: {text}", turns("u", text)) for text in corpus["requests"]]
    found += [
        (f"second request: {text}", turns("uau", "What is uremia?", "Urea.", text)) for text in corpus["requests"]
    ]
    for place, (roles, before, after) in _PLACES.items():
        found += [(f"{place}: {name}", turns(roles, *before, text, *after)) for name, text in corpus["texts"].items()]
    return unlike(found)


def unlike(pairs: Iterable[tuple[str, list[Message]]]) -> dict[str, list[Message]]:
    """Raises ValueError where a name or a conversation appears twice: one of them would not be compared."""
    found: dict[str, list[Message]] = {}
    for name, messages in pairs:
        if name in found or messages in found.values():
            raise ValueError(f"conversation '{name}' appears twice")
        found[name] = messages
    return found


CONVERSATIONS = _corpus()
