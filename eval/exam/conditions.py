"""Example + condition -> the conversation that is sent: how the model learns the form.

served   only the user's words: the model's own SYSTEM applies, as for any of its users
system   the contract's prompt as the system message, in place of the model's own
user     the same text before the user's words, with an empty system message
none     the form is not stated: an empty system message
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from contract.base import Message
from contract.example import Example

CONDITIONS = ("served", "system", "user", "none")
NO_SYSTEM: Message = {"role": "system", "content": ""}  # Ollama then leaves out the model's own SYSTEM


def conversation(condition: str, spec: str, shots: Sequence[Example], example: Example) -> tuple[Message, ...]:
    """The turns before the answer.  `spec` is Contract.system_prompt(), `shots` are examples sent as earlier turns."""
    system = {"served": [], "system": [{"role": "system", "content": spec}], "user": [NO_SYSTEM], "none": [NO_SYSTEM]}
    head = f"{spec}\n\n" if condition == "user" else ""
    earlier: list[Message] = []
    for shot in shots:
        earlier += [{"role": "user", "content": shot.request}, {"role": "assistant", "content": shot.response}]
    return (*system[condition], *earlier, {"role": "user", "content": head + example.request})


def few_shots(train: Sequence[Example], asked: Sequence[Example], count: int) -> list[Example]:
    """`count` training examples, even over categories, none about a concept that is asked; the same for every request.

    There are fewer when the training split has fewer such rows.
    """
    concepts = {example.concept.casefold() for example in asked}
    return sample([row for row in train if row.concept.casefold() not in concepts], count) if count else []


def sample(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """`limit` rows, even over categories, each concept once before any twice; always the same rows, in file order."""
    if limit is None or limit >= len(examples):
        return list(examples)
    seen: dict[str, int] = {}
    ranked: dict[str, list[tuple[int, bytes, int]]] = {}
    for number, example in enumerate(examples):
        turn = seen[example.concept] = seen.get(example.concept, -1) + 1
        draw = hashlib.sha256(example.concept.encode()).digest()  # otherwise the first of the alphabet would be chosen
        ranked.setdefault(example.category, []).append((turn, draw, number))
    places = [(place, name, row[-1]) for name, group in ranked.items() for place, row in enumerate(sorted(group))]
    return [examples[number] for number in sorted(row[-1] for row in sorted(places)[:limit])]
