"""Example + condition -> the conversation that is sent: who tells the model the form, and how many examples it sees.

served   only the user's words: the model's own SYSTEM acts, as for any user of it
system   the contract's prompt as the system message, whatever the model's own is
user     the same text at the head of the user's words, the model's own SYSTEM emptied
none     nobody tells the form: SYSTEM emptied
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from contract.base import Message
from contract.example import Example

CONDITIONS = ("served", "system", "user", "none")
NO_SYSTEM: Message = {"role": "system", "content": ""}  # to Ollama: the model's own SYSTEM is left out


def conversation(condition: str, spec: str, shots: Sequence[Example], example: Example) -> tuple[Message, ...]:
    """The turns before the answer.  `spec` is Contract.system_prompt(), `shots` are examples told as earlier turns."""
    system = {"served": [], "system": [{"role": "system", "content": spec}], "user": [NO_SYSTEM], "none": [NO_SYSTEM]}
    head = f"{spec}\n\n" if condition == "user" else ""
    earlier = [
        turn
        for shot in shots
        for turn in (
            {"role": "user", "content": shot.request},
            {"role": "assistant", "content": shot.response},
        )
    ]
    return (*system[condition], *earlier, {"role": "user", "content": head + example.request})


def few_shots(train: Sequence[Example], asked: Sequence[Example], count: int) -> list[Example]:
    """`count` training examples, even over categories, none of a concept that is asked; the same for every request.

    Fewer when the training split has no more such rows.
    """
    concepts = {example.concept.casefold() for example in asked}
    return sample([row for row in train if row.concept.casefold() not in concepts], count) if count else []


def sample(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """`limit` rows, even over categories, each concept once before any twice; always the same, in file order."""
    if limit is None or limit >= len(examples):
        return list(examples)
    seen: dict[str, int] = {}
    ranked: dict[str, list[tuple[int, bytes, int]]] = {}
    for number, example in enumerate(examples):
        turn = seen[example.concept] = seen.get(example.concept, -1) + 1
        draw = hashlib.sha256(example.concept.encode()).digest()  # or the first of the alphabet would stand for all
        ranked.setdefault(example.category, []).append((turn, draw, number))
    places = [(place, name, row[-1]) for name, group in ranked.items() for place, row in enumerate(sorted(group))]
    return [examples[number] for number in sorted(row[-1] for row in sorted(places)[:limit])]
