"""A base's config.json -> what its GGUF says about the model, and how each tensor is named and laid out there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.base_folder import architecture
from plumbing.errors import UserError, faults_error
from quantize.modelfile import CONTEXT

# Hugging Face architecture -> llama.cpp's.  Mistral is llama.cpp's "llama", as in its own converter.
ARCHITECTURES = {"MistralForCausalLM": "llama", "LlamaForCausalLM": "llama", "GemmaForCausalLM": "gemma"}


@dataclass(frozen=True)
class Family:
    """What llama.cpp's architectures differ in, where a base's files do not say it."""

    activation: str
    paired: bool  # the rows of q and k are re-ordered for the rotation
    norm_offset: float  # what llama.cpp wants added to a norm's weight
    tied: bool  # transformers' default


REAL = ("rms_eps", "rope_theta")  # of a shape's numbers; the others are whole
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

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """What a model of this shape consists of: names as in the GGUF -> rows and columns.  Biases may come on top."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        layer = {
            "attn_norm": (self.hidden,), "attn_q": (queries, self.hidden), "attn_k": (keys, self.hidden),
            "attn_v": (keys, self.hidden), "attn_output": (self.hidden, queries), "ffn_norm": (self.hidden,),
            "ffn_gate": (self.feed_forward, self.hidden), "ffn_up": (self.feed_forward, self.hidden),
            "ffn_down": (self.hidden, self.feed_forward),
        }  # fmt: skip
        table = {"token_embd": (self.vocabulary, self.hidden), "output_norm": (self.hidden,)}
        table |= {} if self.tied else {"output": (self.vocabulary, self.hidden)}
        table |= {f"blk.{number}.{name}": size for number in range(self.layers) for name, size in layer.items()}
        return {f"{name}.weight": size for name, size in table.items()}


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


def check_tensors(shape: Shape, placed: Collection[Placed], sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError when the base's tensors (`sizes`, by their names there) do not make up a model of this shape."""
    held, wanted = {p.name: sizes[p.source] for p in placed}, shape.tensors()
    faults = [f"lacks {name}" for name in wanted if name not in held]
    for p in placed:
        size = wanted.get(p.name) or wanted[p.name.replace(".bias", ".weight")][:1]
        if held[p.name] != size:
            told = (" x ".join(map(str, one)) for one in (held[p.name], size))
            faults.append(f"holds {p.source} as {next(told)}, config.json says {next(told)}")
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise UserError(f"the base {'; '.join(faults[:3])}{more}: fetch it again, all files from one place")


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's settings, as transformers 5 or as transformers 4 spells them."""
    older = {"rope_theta": config.get("rope_theta", 10000.0)} | (config.get("rope_scaling") or {})
    return config.get("rope_parameters") or older


def _faults(config: dict[str, Any], rope: dict[str, Any], shape: Shape) -> list[str]:
    numbers = {key: value for key, value in vars(shape).items() if key not in ("arch", "tied")}
    faults = [
        f"{key} is {value!r}, wanted a {'' if key in REAL else 'whole '}number above 0"
        for key, value in numbers.items()
        if not _is_size(value, key in REAL)
    ]
    if faults:
        return faults
    if shape.heads % shape.kv_heads or shape.head_size % 2:
        faults.append(f"{shape.heads} heads of {shape.head_size} cannot share {shape.kv_heads} of keys and values")
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    if scaling != "default":
        faults.append(f"rope scaling '{scaling}' is not supported (supported: default)")
    partial = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1
    if partial != 1:
        faults.append(f"partial_rotary_factor is {partial} (supported: 1)")
    window = config.get("sliding_window")
    if window and window < min(shape.context, CONTEXT):
        faults.append(f"sliding_window is {window}, llama.cpp would look back on all of {CONTEXT} tokens")
    wanted = FAMILIES[shape.arch].activation
    key = "hidden_activation" if config.get("hidden_activation") else "hidden_act"  # Gemma's first releases have both
    if config.get(key, wanted) != wanted:
        faults.append(f"{key} is '{config[key]}' (supported: {wanted})")
    if shape.arch == "gemma" and not shape.tied:
        faults.append("tie_word_embeddings is false, llama.cpp's gemma has no output matrix of its own")
    return faults


def _is_size(value: object, real: bool) -> bool:
    """Whether it is a number above 0 that a GGUF can hold in 32 bits."""
    return isinstance(value, float if real else int) and not isinstance(value, bool) and 0 < value < 1 << 31


def place(shape: Shape, names: Collection[str]) -> list[Placed]:
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
