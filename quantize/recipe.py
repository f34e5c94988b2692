"""The file's type + a tensor's name and shape -> the tensor's block type, chosen as llama.cpp does.

The rules are those of llama.cpp's src/llama-quant.cpp, in llama-cpp-python 0.3.36.  Tests compare every type and shape
with `llama_model_quantize` itself.  Types are named as in gguf.GGMLQuantizationType.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

LayerRule = Callable[[int, int], str | None]  # layer, number of layers -> block type; None: the file's default


@dataclass(frozen=True)
class Recipe:
    file_type: str  # in gguf.LlamaFileType: the file's general.file_type
    default: str
    output: str  # for the output matrix, or for the embedding when they are the same tensor
    layers: Mapping[str, LayerRule] = field(default_factory=dict)  # part of a tensor's name -> its own rule


def _more_bits(kind: str) -> LayerRule:
    """`kind` for the first and last eighth of the layers and every third between, where errors cost the most."""

    def choose(layer: int, layers: int) -> str | None:
        chosen = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        return kind if chosen else None

    return choose


def _first(share: int, kind: str, rest: str | None = None) -> LayerRule:
    """`kind` for the first 1/`share` of the layers; `rest` for the others."""
    return lambda layer, layers: kind if layer < layers // share else rest


DEFAULT = "q4_k_m"
_MEDIUM = {"attn_v.weight": _more_bits("Q6_K"), "ffn_down.weight": _more_bits("Q6_K")}
RECIPES = {
    "q4_k_m": Recipe("MOSTLY_Q4_K_M", "Q4_K", "Q6_K", _MEDIUM),
    "q3_k_m": Recipe("MOSTLY_Q3_K_M", "Q3_K", "Q6_K", {
        "attn_v.weight": lambda layer, layers: "Q5_K" if layer < 2 else "Q4_K",
        "attn_output.weight": lambda layer, layers: "Q4_K",
        "ffn_down.weight": _first(16, "Q5_K", "Q4_K"),
    }),
    "q4_k_s": Recipe("MOSTLY_Q4_K_S", "Q4_K", "Q6_K", {
        "attn_v.weight": lambda layer, layers: "Q5_K" if layer < 4 else None,
        "ffn_down.weight": _first(8, "Q5_K"),
    }),
    "q5_k_m": Recipe("MOSTLY_Q5_K_M", "Q5_K", "Q6_K", _MEDIUM),
    "q5_k_s": Recipe("MOSTLY_Q5_K_S", "Q5_K", "Q6_K"),
    "q6_k": Recipe("MOSTLY_Q6_K", "Q6_K", "Q6_K"),
    "q8_0": Recipe("MOSTLY_Q8_0", "Q8_0", "Q8_0"),
    "f16": Recipe("MOSTLY_F16", "F16", "F16"),
    "bf16": Recipe("MOSTLY_BF16", "BF16", "BF16"),
}  # fmt: skip
BLOCK = {  # columns a block
    "Q3_K": 256, "Q4_K": 256, "Q5_K": 256, "Q6_K": 256,
    "Q4_0": 32, "Q5_0": 32, "Q5_1": 32, "Q8_0": 32, "F16": 1, "BF16": 1,
}  # fmt: skip
# Used when the columns are not a multiple of the block.
FALLBACK = {"Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def choose(recipe: Recipe, name: str, shape: tuple[int, ...], layers: int, tied: bool) -> str:
    """The block type of one tensor of `shape` (rows, columns).  `tied`: the embedding is the output matrix too.

    >>> choose(RECIPES["q4_k_m"], "blk.0.attn_q.weight", (4096, 4096), layers=32, tied=False)
    'Q4_K'
    >>> choose(RECIPES["q4_k_m"], "blk.0.attn_q.weight", (320, 320), layers=32, tied=False)
    'Q5_0'
    """
    if len(shape) == 1 or name.endswith("_norm.weight"):
        return "F32"
    kind, columns = _by_name(recipe, name, layers, tied), shape[-1]
    if columns % BLOCK[kind]:
        kind = FALLBACK.get(kind, kind)
    return kind if columns % BLOCK[kind] == 0 else "F16"


def _by_name(recipe: Recipe, name: str, layers: int, tied: bool) -> str:
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return recipe.output
    for part, rule in recipe.layers.items():
        match = re.fullmatch(rf"blk\.(\d+)\.{re.escape(part)}", name)
        if match:
            return rule(int(match[1]), layers) or recipe.default
    return recipe.default
