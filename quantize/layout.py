"""A base's tensors -> their names, order and layout in the GGUF."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from models.shape import FAMILIES, Shape
from plumbing.errors import UserError


@dataclass(frozen=True)
class Placed:
    """One of the base's tensors: its name in the GGUF, and how its values are laid out there."""

    source: str
    name: str
    heads: int = 0  # the rows are permuted within each; 0: not permuted
    offset: float = 0.0  # added to each value

    def arrange(self, weight: np.ndarray) -> np.ndarray:
        """The values as llama.cpp expects them: permuted (its converter's own word) or with the offset added.

        Hugging Face stores the two halves of a rotary pair far from each other, llama.cpp side by side.
        Gemma multiplies by 1 + weight in its norms and llama.cpp by the weight, so the 1 is added to the file.
        """
        if self.offset:
            return weight + np.float32(self.offset)
        if not self.heads:
            return weight
        split = weight.reshape(self.heads, 2, weight.shape[0] // self.heads // 2, *weight.shape[1:])
        return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def place(shape: Shape, names: Collection[str]) -> list[Placed]:
    """The GGUF's tensors in its order: embedding, layers, output.  Raises UserError for an unknown tensor."""
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[shape.arch.upper()], shape.layers)
    placed, unknown = [], []
    for source in names:
        if source == "lm_head.weight" and shape.tied:
            continue  # a second copy of the embedding
        if source.endswith(".rotary_emb.inv_freq"):
            continue  # in Llama 2's files; llama.cpp makes it from the rotation's base
        name = table.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            unknown.append(source)
        else:
            offset = FAMILIES[shape.arch].norm_offset if name.endswith("_norm.weight") else 0.0
            placed.append(Placed(source, name, _heads(shape, source), offset))
    if unknown:
        raise UserError(
            f"{len(unknown)} tensors of the base are unknown to '{shape.arch}', such as {unknown[0]}; use another base"
        )
    return sorted(placed, key=lambda p: (_position(p.name), p.name))


def _heads(shape: Shape, source: str) -> int:
    if not FAMILIES[shape.arch].paired:
        return 0
    part = source.rpartition(".")[0]
    return shape.heads if part.endswith("q_proj") else shape.kv_heads if part.endswith("k_proj") else 0


def _position(name: str) -> int:
    if name.startswith("blk."):
        return int(name.split(".")[1])
    return -1 if name == "token_embd.weight" else 1 << 30
