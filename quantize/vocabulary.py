"""A base's tokenizer.model -> the pieces, scores and types that llama.cpp tokenises with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.base import Base
from plumbing.errors import UserError

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # llama.cpp's token types


@dataclass(frozen=True)
class Vocabulary:
    pieces: list[str]
    types: list[int]
    bos: int | None
    eos: int  # the base's stop: what the model learned to end with
    pad: int
    unknown: int | None = None
    model: str = "llama"  # SentencePiece, or "gpt2": byte-level BPE
    pre: str = "default"  # llama.cpp's name of the rule that cuts text before BPE
    scores: list[float] = field(default_factory=list)  # of SentencePiece
    merges: list[str] = field(default_factory=list)  # of BPE

    def write(self, writer: GGUFWriter) -> None:
        """Into a GGUF's header."""
        writer.add_vocab_size(len(self.pieces))
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.pieces)
        if self.scores:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.merges:
            writer.add_token_merges(self.merges)
        if self.bos is not None:
            writer.add_bos_token_id(self.bos)
        writer.add_eos_token_id(self.eos)
        if self.unknown is not None:
            writer.add_unk_token_id(self.unknown)
        writer.add_pad_token_id(self.pad)


def read_vocabulary(folder: Path, base: Base, size: int) -> Vocabulary:
    """The vocabulary, filled up to the embedding's `size`.  Raises UserError when the files do not fit together."""
    model = _open(folder / "tokenizer.model")
    numbers = range(model.get_piece_size())
    pieces, scores = [model.id_to_piece(n) for n in numbers], [model.get_score(n) for n in numbers]
    types = _types(model.serialized_model_proto())
    for number, text, control in _added(folder / "tokenizer_config.json"):
        if number == len(pieces):
            pieces, scores, types = [*pieces, text], [*scores, -1000.0], [*types, NORMAL]
        if number > len(pieces) or pieces[number] != text:
            raise UserError(
                f"{folder}: tokenizer_config.json's token {number} is not piece {number} of tokenizer.model; "
                "fetch both again"
            )
        types[number] = CONTROL if control else USER_DEFINED
    if len(pieces) > size:
        raise UserError(
            f"{folder}: tokenizer.model has {len(pieces)} pieces, the model only {size}; fetch both from one place"
        )
    filling = range(len(pieces), size)
    return Vocabulary(
        pieces=[_shown(*piece) for piece in zip(pieces, types, strict=True)] + [f"[PAD{number}]" for number in filling],
        scores=scores + [-10000.0 for _ in filling],
        types=types + [UNUSED for _ in filling],
        bos=model.bos_id(),
        eos=token_number(pieces, base.stop, folder / "tokenizer.model"),
        unknown=model.unk_id(),
        pad=token_number(pieces, base.pad, folder / "tokenizer.model"),
    )


def _open(path: Path) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        raise UserError(f"{path}: not a SentencePiece model; copy it from the original repository") from None


def _types(data: bytes) -> list[int]:
    """The type of each piece, from the bytes of the model's protobuf.  SentencePiece numbers them as llama.cpp does.

    They are read here because the processor reports every type except USER_DEFINED, and sentencepiece's generated reader
    needs the newest protobuf.  ModelProto: 1 pieces; SentencePiece: 1 text, 2 score, 3 type.
    """
    return [next((v for f, v in _fields(entry) if f == 3), NORMAL) for field, entry in _fields(data) if field == 1]


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message (https://protobuf.dev/programming-guides/encoding/)."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            at, byte = at + 1, data[at]
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        field, kind = divmod(number(), 8)
        if kind == 0:
            yield field, number()
        else:  # the bytes of a double, a text or message, a float
            size = {1: 8, 5: 4}.get(kind) or number()
            at, value = at + size, data[at : at + size]
            yield field, value


def _shown(piece: str, kind: int) -> str:
    """llama.cpp looks for added pieces in the text as it is, before it writes spaces as U+2581."""
    return piece.replace("\u2581", " ") if kind == USER_DEFINED else piece


def _added(path: Path) -> list[tuple[int, str, bool]]:
    """The added tokens in tokenizer_config.json: number, text, whether it is a control token."""
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder") or {}
        added = sorted(
            (int(number), str(entry["content"]), bool(entry.get("special"))) for number, entry in entries.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: not a tokenizer's config; fetch the base again") from None
    return added


def token_number(pieces: list[str], text: str, path: Path) -> int:
    """The id of the piece `text`.  Raises UserError when there is none."""
    if text not in pieces:
        raise UserError(f"{path}: has no token '{text}', which base.toml names; is it the right base?")
    return pieces.index(text)
