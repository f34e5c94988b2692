"""A base's folder -> its shape, after checking that config.json, tokenizer and weights fit together.

Without this check a download that was cut short would end in a traceback of transformers.  Worse, a layer whose weights
are missing would start from random values without a warning.
"""

from __future__ import annotations

from pathlib import Path

from contract.base import Base
from models.shape import Shape, check_tensors, read_shape
from models.tensors import open_base
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError


def check_trainable(folder: Path, base: Base) -> Shape:
    """The shape in config.json.  Raises UserError naming the parts of the folder that do not fit it."""
    shape = read_shape(folder)
    _check_config(folder)
    _check_tokenizer(folder, base, shape)
    check_tensors(shape, {name: tensor.shape for name, tensor in open_base(folder).items()})
    return shape


def _check_config(folder: Path) -> None:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers' and the Hub's checks each raise their own kinds
        cause = " ".join(str(error).split())
        raise UserError(f"{folder / 'config.json'}: transformers cannot read it: {cause[:200]}") from None


def _check_tokenizer(folder: Path, base: Base, shape: Shape) -> None:
    tokens = max(load_tokenizer(folder, base).get_vocab().values()) + 1
    if tokens > shape.vocabulary:
        cause = f"the tokenizer has {tokens} tokens, config.json says at most {shape.vocabulary}"
        raise UserError(f"{folder}: {cause}; fetch the base again")
