"""A base's folder -> its shape, after checking that config.json, tokenizer and weights fit together.

Without this check a download that was cut short would end in a traceback of transformers.  Worse, a layer whose weights
are missing would start from random values without a warning.
"""

from __future__ import annotations

from pathlib import Path

from models.shape import Shape, check_tensors, read_shape
from models.tensors import open_base
from plumbing.errors import UserError


def check_trainable(folder: Path) -> Shape:
    """The shape in config.json.  Raises UserError naming the parts of the folder that do not fit it."""
    shape = read_shape(folder)
    _check_config(folder)
    _check_tokenizer(folder / "tokenizer.model", shape)
    check_tensors(shape, {name: tensor.shape for name, tensor in open_base(folder).items()})
    return shape


def _check_config(folder: Path) -> None:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers' and the Hub's checks each raise their own kinds
        cause = " ".join(str(error).split())
        raise UserError(f"{folder / 'config.json'}: transformers cannot read it: {cause[:200]}") from None


def _check_tokenizer(path: Path, shape: Shape) -> None:
    import sentencepiece

    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path)).vocab_size()
    except (OSError, RuntimeError):
        raise UserError(f"{path}: not a SentencePiece model; fetch the base again") from None
    if pieces > shape.vocabulary:
        raise UserError(f"{path}: has {pieces} pieces, by config.json at most {shape.vocabulary}; fetch the base again")
