"""Examples + base -> token ids, with the loss on the response only.

A row is {"input_ids": [...], "completion_mask": [0, ..., 1, ...]}.  The mask is 1 on the tokens that the model must
generate, the stop token included.
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Sequence
from typing import Any

from contract.base import Base
from contract.contract import Contract
from contract.example import Example
from contract.kinds import Choice, Fixed
from finetune.invented_names import invented_name
from plumbing.errors import UserError

Row = dict[str, list[int]]
SHOWN_ROWS = 5


def tokenize(examples: Sequence[Example], base: Base, tokenizer: Any, max_length: int) -> list[Row]:
    """One row for each example.  Raises UserError naming the rows that are longer than `max_length` tokens."""
    rows = [tokenize_example(example, base, tokenizer) for example in examples]
    lengths = [(len(row["input_ids"]), example.id) for row, example in zip(rows, examples, strict=True)]
    long = sorted(((length, name) for length, name in lengths if length > max_length), reverse=True)
    if long:
        shown = ", ".join(f"{name} ({length})" for length, name in long[:SHOWN_ROWS])
        raise UserError(
            f"{len(long)} of {len(rows)} rows are longer than max_length={max_length} tokens: {shown}; "
            f"--set max_length={long[0][0]} would be enough"
        )
    return rows


def tokenize_example(example: Example, base: Base, tokenizer: Any) -> Row:
    """The whole text's tokens.  They must begin with the prompt's own tokens, because the server sees those."""
    prompt = tokenizer(base.prompt(example.messages()), add_special_tokens=base.add_bos)["input_ids"]
    text = base.prompt(example.messages()) + base.completion(example.response)
    whole = tokenizer(text, add_special_tokens=base.add_bos)["input_ids"]
    if whole[: len(prompt)] != prompt:
        raise UserError(
            f"row '{example.id}': base '{base.name}' has a token across the border of prompt and answer; correct its TOML"
        )
    if whole[-1] != tokenizer.convert_tokens_to_ids(base.stop):
        raise UserError(
            f"row '{example.id}': the last token is not the stop {base.stop!r}: the tokenizer does not know it"
        )
    return {"input_ids": whole, "completion_mask": [0] * len(prompt) + [1] * (len(whole) - len(prompt))}


def with_invented(contract: Contract, examples: Sequence[Example], share: float, seed: int) -> list[Example]:
    """The examples, and for a share of them copies with an invented concept name, so that the model learns to copy it."""
    rng = random.Random(seed)
    chosen = rng.sample(list(examples), round(share * len(examples)))
    copies = (_rename(contract, example, invented_name((), rng)) for example in chosen)
    return [*examples, *(copy for found in copies for copy in found)]


def _rename(contract: Contract, example: Example, name: str) -> list[Example]:
    """The example with another concept's name; none if the contract refuses it, for example because it is too long."""
    pattern = re.compile(rf"\b{re.escape(example.concept)}\b", re.IGNORECASE)

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(part) for key, part in value.items()}
        if isinstance(value, list):
            return [put(part) for part in value]
        return pattern.sub(lambda m: name[:1].upper() + name[1:] if m.group()[:1].isupper() else name, value)

    own = {section.name for section in contract.sections if not isinstance(section.kind, Fixed | Choice)}
    record = {section: put(value) if section in own else value for section, value in example.record.items()}
    try:
        response = contract.write(record)
    except ValueError:
        return []
    changed = {"id": f"{example.id}/invented", "request": put(example.request), "concept": name}
    return [dataclasses.replace(example, record=record, response=response, **changed)]
