"""Proof of the export: bytes as of merge_and_unload -> f16 GGUF -> llama_model_quantize, logits as of transformers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.base import load_base
from models.shape import read_shape
from models.tensors import open_base, open_file
from plumbing.errors import UserError
from plumbing.handover import write_manifest
from quantize.export import export, gguf_path
from quantize.gguf_file import lay_out
from quantize.recipe import RECIPES
from quantize.vocabulary import read_vocabulary
from quantize.weights import Lora
from tests.conftest import make_small_adapter, make_small_base

# name -> (what differs from the small base of conftest, what differs from its adapter)
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tied, multiples of 256": ({}, {}),
    "untied, 8 layers, rslora": (
        {"tie_word_embeddings": False, "num_hidden_layers": 8},
        {"use_rslora": True, "r": 4, "lora_alpha": 7},
    ),
    "columns of 32 only": (
        {"hidden_size": 320, "intermediate_size": 544},
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 40}},
    ),
    "untied, columns of 32 only": (
        {"hidden_size": 96, "tie_word_embeddings": False},
        {"target_modules": ["q_proj", "down_proj"]},
    ),
    "columns of 16 only": ({"hidden_size": 80, "intermediate_size": 144}, {"lora_alpha": 11}),
    "one key/value head, wide heads": ({"num_key_value_heads": 1, "head_dim": 96}, {"r": 32, "lora_alpha": 32}),
    "every head its own": ({"num_key_value_heads": 4, "num_attention_heads": 4, "num_hidden_layers": 3}, {"r": 16}),
    "16 layers": ({"num_hidden_layers": 16}, {"r": 4}),
    "untied, 18 layers, columns of 32 only": (
        {"num_hidden_layers": 18, "hidden_size": 160, "intermediate_size": 224, "tie_word_embeddings": False},
        {"r": 4},
    ),
    "wide ffn of 32 only": ({"intermediate_size": 800}, {"r": 5}),
    "odd heads": ({"hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 3}, {"r": 8}),
    "one layer, untied": ({"num_hidden_layers": 1, "tie_word_embeddings": False}, {"r": 2}),
    "modules trained whole": ({"tie_word_embeddings": False}, {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "gemma": ({"family": "Gemma", "num_key_value_heads": 1, "head_dim": 96, "num_hidden_layers": 8}, {"r": 4}),
    "gemma, columns of 32 only": ({"family": "Gemma", "head_dim": 64, "hidden_size": 96}, {"r": 4}),
}
Model = tuple[Path, Path, Path]  # adapter folder, merged model by PEFT, f16 GGUF of it


@pytest.fixture(scope="module", params=SHAPES, ids=lambda name: name.replace(" ", "_"))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    folder = tmp_path_factory.mktemp("shape")
    shape, lora = SHAPES[request.param]
    base = make_small_base(folder / "base", **shape)
    adapter = on_a_grid(make_small_adapter(base, folder / "adapter", **lora))
    merged = merge_with_peft(base, adapter, folder / "merged")
    yield adapter, merged, convert(merged, folder / "reference.gguf")


@pytest.mark.parametrize("kind", RECIPES)
def test_tensors_equal_those_of_llama_cpp(model: Model, kind: str, tmp_path: Path) -> None:
    adapter, _, f16 = model
    reference = f16 if kind == "f16" else quantize_with_llama_cpp(f16, tmp_path / "theirs.gguf", kind)
    export(adapter, tmp_path / "model", kind)
    ours, theirs = read_tensors(gguf_path(tmp_path / "model", kind)), read_tensors(reference)
    assert {name: t[:2] for name, t in ours.items()} == {name: t[:2] for name, t in theirs.items()}
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_the_reference_differs_without_the_adapter(model: Model, tmp_path: Path) -> None:
    adapter, _, f16 = model
    export(adapter, tmp_path / "model", "f16", base_only=True)
    ours, theirs = read_tensors(gguf_path(tmp_path / "model", "f16")), read_tensors(f16)
    tuned = {name for name in ours if ours[name] != theirs[name]}
    targets = json.loads((adapter / "adapter_config.json").read_text())["target_modules"]
    layers = json.loads((adapter.parent / "base" / "config.json").read_text())["num_hidden_layers"]
    saved = json.loads((adapter / "adapter_config.json").read_text())["modules_to_save"] or []
    assert len(tuned) == len(targets) * layers + len(saved)


PROMPTS = ["[INST] What is uremia?[/INST]", "  two  spaces, Ménière’s 漢字 🫀\n\nnew line", " leading", ""]


def test_f16_in_llama_cpp_gives_the_ids_and_logits_of_transformers(model: Model, tmp_path: Path) -> None:
    """Tolerance: 2 % of the logits' spread.  Same weights; llama.cpp multiplies in f16 and keeps its cache in f16."""
    import torch
    from llama_cpp import Llama
    from transformers import AutoModelForCausalLM, LlamaTokenizer

    adapter, merged, _ = model
    export(adapter, tmp_path / "model", "f16")
    theirs = LlamaTokenizer.from_pretrained(adapter.parent / "base", legacy=False)
    reference = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    served = Llama(str(gguf_path(tmp_path / "model", "f16")), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    try:
        for prompt in PROMPTS:
            ids = theirs(prompt)["input_ids"]
            assert served.tokenize(prompt.encode(), add_bos=True, special=True) == ids
            served.reset()
            served.eval(ids)
            wanted = reference(torch.tensor([ids])).logits[0].detach().numpy()
            found = served.scores[: len(ids)]
            assert np.abs(found - wanted).max() < 0.02 * wanted.std(), prompt
    finally:
        served.close()


@pytest.mark.parametrize(
    ("tied", "drop", "told"),
    [
        (True, "", "the adapter changes lm_head.weight, which the base ties to its embedding"),
        (False, "lm_head.weight", "the base lacks lm_head.weight"),
        (True, "model.norm.weight", "the base lacks model.norm.weight"),
        (True, "model.embed_tokens.weight", "the base lacks model.embed_tokens.weight"),
    ],
)
def test_a_plan_that_would_lose_something_is_refused(small_base: Path, tied: bool, drop: str, told: str) -> None:
    tensors = open_base(small_base)
    tensors["lm_head.weight"] = embedding = tensors["model.embed_tokens.weight"]
    loras = {} if drop else {"lm_head.weight": Lora(embedding, embedding, 1.0)}
    tensors.pop(drop, None)
    shape = dataclasses.replace(read_shape(small_base), tied=tied)
    with pytest.raises(UserError, match=told):
        lay_out("q4_k_m", shape, read_vocabulary(small_base, load_base("tiny"), shape.vocabulary), tensors, loras)


def on_a_grid(adapter: Path) -> Path:
    """Round the adapter's weights to multiples of 1/1024: then B @ A is exact in float32, in whatever order it is summed.

    PEFT multiplies by torch's BLAS and the export by NumPy's; on free values the two may differ in a sum's last bit
    (tests/quantize/test_weights.py bounds that).  Here every byte must be equal, on every machine.
    """
    from safetensors.numpy import save_file

    weights = open_file(adapter / "adapter_model.safetensors")
    weights = {name: np.round(tensor.read() * 1024) / 1024 for name, tensor in weights.items()}
    save_file(weights, adapter / "adapter_model.safetensors")
    old = json.loads((adapter / "manifest.json").read_text())
    write_manifest(adapter, "adapter", old["inputs"], old["settings"], {})
    return adapter


def merge_with_peft(base: Path, adapter: Path, folder: Path) -> Path:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    return folder


NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def convert(merged: Path, path: Path) -> Path:
    """An f16 GGUF of a merged model by other means than the code under test: torch, names of its own, add_tensor."""
    import torch
    from gguf import GGUFWriter
    from safetensors.torch import load_file

    config = json.loads((merged / "config.json").read_text())
    gemma = config["architectures"] == ["GemmaForCausalLM"]
    writer = GGUFWriter(path, "gemma" if gemma else "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(1024)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    for name, tensor in load_file(merged / "model.safetensors").items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        if gemma:
            tensor = tensor.float() + 1 if name.endswith("norm.weight") else tensor
        elif heads:
            size = tensor.shape[0] // config[heads] // 2
            tensor = tensor.unflatten(0, (config[heads], 2, size)).transpose(1, 2).flatten(0, 2).contiguous()
        writer.add_tensor(gguf_name(name), tensor.to(torch.float32 if tensor.ndim == 1 else torch.float16).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_name(name: str) -> str:
    module = name.removesuffix(".weight")
    if not module.startswith("model.layers."):
        return f"{NAMES[module]}.weight"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def quantize_with_llama_cpp(f16: Path, path: Path, kind: str) -> Path:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{RECIPES[kind].file_type}")
    params.nthread = 1
    assert llama_cpp.llama_model_quantize(str(f16).encode(), str(path).encode(), params) == 0
    return path


def read_tensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Name -> type, shape, bytes."""
    from gguf import GGUFReader

    return {t.name: (t.tensor_type.name, t.shape.tolist(), t.data.tobytes()) for t in GGUFReader(path).tensors}
