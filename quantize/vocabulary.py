"""A base's tokenizer.model -> the pieces, scores and types that llama.cpp tokenises by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.base import Base
from contract.errors import UserError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # llama.cpp's token types


@dataclass(frozen=True)
class Vocabulary:
    pieces: list[str]
    scores: list[float]
    types: list[int]
    bos: int
    eos: int  # the base's stop: what the model learned to end with
    unknown: int
    pad: int


def read_vocabulary(folder: Path, base: Base, size: int) -> Vocabulary:
    """The vocabulary, filled up to the `size` that the embedding has.  Raises UserError when the two do not fit."""
    model = _open(folder / "tokenizer.model")
    numbers = range(model.get_piece_size())
    pieces, scores = [model.id_to_piece(n) for n in numbers], [model.get_score(n) for n in numbers]
    types = [_type(model, n) for n in numbers]
    for number, entry in _added(folder / "tokenizer_config.json"):
        if number == len(pieces):
            pieces, scores, types = [*pieces, entry["content"]], [*scores, -1000.0], [*types, NORMAL]
        if number > len(pieces) or pieces[number] != entry["content"]:
            raise UserError(
                f"{folder}: tokenizer_config.json's token {number} is no piece {number} of tokenizer.model; "
                "fetch both again"
            )
        types[number] = CONTROL if entry.get("special") else USER_DEFINED
    if len(pieces) > size:
        raise UserError(
            f"{folder}: tokenizer.model has {len(pieces)} pieces, the model only {size}; fetch both from one place"
        )
    filling = range(len(pieces), size)
    return Vocabulary(
        pieces=pieces + [f"[PAD{number}]" for number in filling],
        scores=scores + [-10000.0 for _ in filling],
        types=types + [UNUSED for _ in filling],
        bos=model.bos_id(),
        eos=_number(pieces, base.stop, folder),
        unknown=model.unk_id(),
        pad=_number(pieces, base.pad, folder),
    )


def _open(path: Path) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        raise UserError(f"{path}: not a SentencePiece model; copy it from the original repository") from None


def _type(model: Any, number: int) -> int:
    tests = ((model.is_unknown, UNKNOWN), (model.is_control, CONTROL), (model.is_unused, UNUSED), (model.is_byte, BYTE))
    return next((kind for holds, kind in tests if holds(number)), NORMAL)


def _added(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """What tokenizer_config.json says of single tokens, by number."""
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder") or {}
        return sorted((int(number), dict(entry)) for number, entry in entries.items())
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path}: not a tokenizer's config; fetch the base again") from None


def _number(pieces: list[str], text: str, folder: Path) -> int:
    if text not in pieces:
        raise UserError(
            f"{folder}: tokenizer.model has no piece '{text}', which base.toml names; is it the right base?"
        )
    return pieces.index(text)
