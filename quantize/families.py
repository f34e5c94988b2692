"""A base's config.json -> what its GGUF says about the model, and how each tensor is named and laid out there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.base_folder import architecture
from contract.errors import UserError, faults_error

# Hugging Face architecture -> llama.cpp's.  Mistral is llama.cpp's "llama", as in its own converter.
ARCHITECTURES = {"MistralForCausalLM": "llama", "LlamaForCausalLM": "llama", "GemmaForCausalLM": "gemma"}


@dataclass(frozen=True)
class Family:
    """What llama.cpp's architectures differ in, where a base's files do not say it."""

    activation: str
    paired: bool  # the rows of q and k are re-ordered for the rotation
    norm_offset: float  # what llama.cpp wants added to a norm's weight
    tied: bool  # transformers' default


FAMILIES = {
    "llama": Family("silu", paired=True, norm_offset=0.0, tied=False),
    "gemma": Family("gelu_pytorch_tanh", paired=False, norm_offset=1.0, tied=True),
}


@dataclass(frozen=True)
class Shape:
    """The model's shape, as the GGUF's metadata wants it."""

    arch: str  # llama.cpp's name of the architecture
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int  # tokens
    rms_eps: float
    rope_theta: float
    tied: bool  # the embedding is the output matrix too


@dataclass(frozen=True)
class Placed:
    """Where one of the base's tensors goes: its name there, and how its values are laid out there."""

    source: str
    name: str
    heads: int = 0  # over which its rows are re-ordered; 0: they are not
    offset: float = 0.0  # added to each value

    def arrange(self, weight: np.ndarray) -> np.ndarray:
        """Hugging Face keeps the two halves of a rotary pair apart, llama.cpp side by side.

        Gemma multiplies by 1 + weight in its norms, llama.cpp by the weight: so the 1 goes into the file.
        """
        if self.offset:
            return weight + np.float32(self.offset)
        if not self.heads:
            return weight
        split = weight.reshape(self.heads, 2, weight.shape[0] // self.heads // 2, *weight.shape[1:])
        return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))


def read_shape(folder: Path) -> Shape:
    """The shape in a base's config.json.  Raises UserError naming all that llama.cpp could not run as trained."""
    path, name = folder / "config.json", architecture(folder)
    if name not in ARCHITECTURES:
        raise UserError(f"{path}: {name} cannot be exported (known: {', '.join(ARCHITECTURES)})")
    config = json.loads(path.read_text(encoding="utf-8"))
    try:
        rope = _rope(config)
        shape = Shape(
            arch=ARCHITECTURES[name],
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            feed_forward=config["intermediate_size"],
            heads=config["num_attention_heads"],
            kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            head_size=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
            vocabulary=config["vocab_size"],
            context=config["max_position_embeddings"],
            rms_eps=float(config["rms_norm_eps"]),
            rope_theta=float(rope["rope_theta"]),
            tied=bool(config.get("tie_word_embeddings", FAMILIES[ARCHITECTURES[name]].tied)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: no usable {error}; fetch the base again") from None
    faults = _faults(config, rope, shape)
    if faults:
        raise faults_error(str(path), faults)
    return shape


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's settings, as transformers 5 or as transformers 4 spells them."""
    older = {"rope_theta": config.get("rope_theta", 10000.0)} | (config.get("rope_scaling") or {})
    return config.get("rope_parameters") or older


def _faults(config: dict[str, Any], rope: dict[str, Any], shape: Shape) -> list[str]:
    faults = []
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "some method")
        faults.append(f"the base is quantised ({method}): name the 16-bit base with --base DIR")
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    if scaling != "default":
        faults.append(f"rope scaling '{scaling}' is not supported (supported: default)")
    wanted = FAMILIES[shape.arch].activation
    key = "hidden_activation" if config.get("hidden_activation") else "hidden_act"  # Gemma's first releases have both
    if config.get(key, wanted) != wanted:
        faults.append(f"{key} is '{config[key]}' (supported: {wanted})")
    if shape.arch == "gemma" and not shape.tied:
        faults.append("tie_word_embeddings is false, llama.cpp's gemma has no output matrix of its own")
    return faults


def place(shape: Shape, names: Iterable[str]) -> list[Placed]:
    """The GGUF's tensors in its order: embedding, layers, output.  Raises UserError for a tensor nobody knows."""
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
