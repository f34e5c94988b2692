"""A base's folder -> its shape, if config.json, tokenizer.model and weights can be read and belong together.

Otherwise a download that was cut short would end in transformers, or worse: a layer whose weights are missing is
trained from random ones without a word.
"""

from __future__ import annotations

from pathlib import Path

from contract.base import Base
from finetune.memory import Shape, read_shape
from models.base_folder import weight_files
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError


def check_base(folder: Path, base: Base) -> Shape:
    """The shape in config.json.  Raises UserError naming what of the folder does not fit it."""
    shape = read_shape(folder)
    _check_config(folder)
    _check_tokenizer(folder, base, shape)
    found, wanted = _read_shapes(folder), shape.tensors()
    wrong = [name for name, size in wanted.items() if found.get(name) != size]
    if wrong:
        name = wrong[0]
        others = f" (and {len(wrong) - 1} more)" if wrong[1:] else ""
        fault = f"of shape {found[name]}, by config.json {wanted[name]}" if name in found else "missing"
        raise UserError(f"{folder}: {name} is {fault}{others}; fetch it again, or take a base built as Llama is")
    return shape


def _check_config(folder: Path) -> None:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers' and the Hub's checks each raise their own kinds
        told = " ".join(str(error).split())
        raise UserError(f"{folder / 'config.json'}: transformers cannot read it: {told[:200]}") from None


def _check_tokenizer(folder: Path, base: Base, shape: Shape) -> None:
    tokens = max(load_tokenizer(folder, base).get_vocab().values()) + 1
    if tokens > shape.vocabulary:
        raise UserError(
            f"{folder}: the tokenizer has {tokens} tokens, config.json says at most {shape.vocabulary}; fetch the base again"
        )


def _read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, from the files' headers alone."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="np") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path}: cannot be read ({error}); fetch it again") from None
    return shapes
