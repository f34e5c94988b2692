"""A base's config.json -> its Shape: layers, widths, heads, context, and the tensors it must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.base_folder import read_config
from plumbing.errors import UserError, faults_error

CONTEXT = 4096  # tokens at most when served: a conversation of some turns; more costs memory on the user's machine


@dataclass(frozen=True)
class Family:
    """What differs between llama.cpp's architectures and is not in a base's files."""

    activation: str
    paired: bool  # the rows of q and k are permuted for the rotation
    norm_offset: float  # added to a norm's weight, because llama.cpp expects it there
    tied: bool  # transformers' default


# Hugging Face architecture -> llama.cpp's.  Mistral is llama.cpp's "llama", as in its own converter.
ARCHITECTURES = {"MistralForCausalLM": "llama", "LlamaForCausalLM": "llama", "GemmaForCausalLM": "gemma"}
FAMILIES = {
    "llama": Family("silu", paired=True, norm_offset=0.0, tied=False),
    "gemma": Family("gelu_pytorch_tanh", paired=False, norm_offset=1.0, tied=True),
}
_REAL = ("rms_eps", "rope_theta")  # the other numbers of a shape are whole


@dataclass(frozen=True)
class Shape:
    """The size of a model's parts.  Training predicts its memory from it, the export writes it into the GGUF."""

    arch: str  # llama.cpp's name of the architecture, a key of FAMILIES
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

    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (outputs, inputs)."""
        queries, keys = self.heads * self.head_size, self.kv_heads * self.head_size
        up = (self.feed_forward, self.hidden)
        return {
            "self_attn.q_proj": (queries, self.hidden), "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden), "self_attn.o_proj": (self.hidden, queries),
            "mlp.gate_proj": up, "mlp.up_proj": up, "mlp.down_proj": up[::-1],
        }  # fmt: skip

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor by its Hugging Face name -> rows and columns.  A base may have biases as well."""
        layer: dict[str, tuple[int, ...]] = {"input_layernorm": (self.hidden,), **self.linear()}
        layer["post_attention_layernorm"] = (self.hidden,)
        table: dict[str, tuple[int, ...]] = {"model.embed_tokens": (self.vocabulary, self.hidden)}
        table |= {f"model.layers.{n}.{name}": size for n in range(self.layers) for name, size in layer.items()}
        table |= {"model.norm": (self.hidden,)} | ({} if self.tied else {"lm_head": (self.vocabulary, self.hidden)})
        return {f"{name}.weight": size for name, size in table.items()}


def read_shape(folder: Path) -> Shape:
    """Read a base's shape.  Raises UserError naming everything that llama.cpp could not run as it was trained."""
    path, config = folder / "config.json", read_config(folder)
    named = config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else "no architecture"
    if name not in ARCHITECTURES:
        raise UserError(f"{path}: names {name}, which cannot be exported (known: {', '.join(ARCHITECTURES)})")
    arch = ARCHITECTURES[name]
    try:
        rope = _rope(config)
        shape = Shape(
            arch=arch,
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
            tied=bool(config.get("tie_word_embeddings", FAMILIES[arch].tied)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: no usable {error}; fetch the base again") from None
    faults = _faults(config, rope, shape)
    if faults:
        raise faults_error(str(path), faults)
    return shape


def check_tensors(shape: Shape, sizes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises UserError when a base's tensors (name -> shape) are not those of a model of this shape.

    A tensor that the shape does not have is left to the export, which refuses what it cannot place.
    """
    expected = shape.tensors()
    faults = [f"lacks {name}" for name in expected if name not in sizes]
    for name, found in sizes.items():
        bias = expected.get(name.removesuffix(".bias") + ".weight", ())[:1] if name.endswith(".bias") else ()
        size = expected.get(name, bias)
        if size and found != size:
            shapes = [" x ".join(map(str, one)) for one in (found, size)]
            faults.append(f"holds {name} as {shapes[0]}, config.json says {shapes[1]}")
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise UserError(f"the base {'; '.join(faults[:3])}{more}: fetch it again, all files from one place")


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's settings, spelled as in transformers 5 or as in transformers 4."""
    older = {"rope_theta": config.get("rope_theta", 10000.0)} | (config.get("rope_scaling") or {})
    return config.get("rope_parameters") or older


def _faults(config: dict[str, Any], rope: dict[str, Any], shape: Shape) -> list[str]:
    numbers = {key: value for key, value in vars(shape).items() if key not in ("arch", "tied")}
    faults = [
        f"{key} is {value!r}, expected a {'' if key in _REAL else 'whole '}number above 0"
        for key, value in numbers.items()
        if not _is_size(value, key in _REAL)
    ]
    if faults:
        return faults
    if shape.heads % shape.kv_heads:
        faults.append(f"num_attention_heads {shape.heads} is not a multiple of num_key_value_heads {shape.kv_heads}")
    if shape.head_size % 2:
        faults.append(f"head_dim {shape.head_size} is odd, expected an even number")
    scaling = rope.get("rope_type") or rope.get("type") or "default"
    if scaling != "default":
        faults.append(f"rope scaling '{scaling}' is not supported (supported: default)")
    partial = rope.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1
    if partial != 1:
        faults.append(f"partial_rotary_factor is {partial} (supported: 1)")
    window = config.get("sliding_window")
    if window and window < min(shape.context, CONTEXT):
        faults.append(f"sliding_window is {window}, llama.cpp would look back on all of {CONTEXT} tokens")
    expected = FAMILIES[shape.arch].activation
    key = "hidden_activation" if config.get("hidden_activation") else "hidden_act"  # Gemma's first releases have both
    if config.get(key, expected) != expected:
        faults.append(f"{key} is '{config[key]}' (supported: {expected})")
    if shape.arch == "gemma" and not shape.tied:
        faults.append("tie_word_embeddings is false, llama.cpp's gemma has no output matrix of its own")
    return faults


def _is_size(value: object, real: bool) -> bool:
    """Whether it is a number above 0 that a GGUF can hold in 32 bits."""
    return isinstance(value, float if real else int) and not isinstance(value, bool) and 0 < value < 1 << 31
