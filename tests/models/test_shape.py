"""models.shape: what a base's config.json says, what is refused, and tensors that do not fit it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.shape import check_tensors, read_shape
from models.tensors import open_base
from plumbing.errors import UserError


@pytest.fixture
def base(small_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_base, tmp_path / "base"))


def config(folder: Path, drop: str = "", **changes: Any) -> None:
    path = folder / "config.json"
    table = json.loads(path.read_text()) | changes
    table.pop(drop, None)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("changes", "drop", "theta"),
    [
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "", 1e6),  # transformers 5
        ({"rope_theta": 1e6, "rope_scaling": None}, "rope_parameters", 1e6),  # transformers 4
        ({}, "rope_parameters", 1e4),  # the default of both
    ],
)
def test_the_rotation_base_is_read_from_either_place(
    base: Path, changes: dict[str, Any], drop: str, theta: float
) -> None:
    config(base, drop, **changes)
    assert read_shape(base).rope_theta == theta


def test_the_shape_of_a_base(base: Path) -> None:
    shape = dataclasses.asdict(read_shape(base))
    assert shape == {
        "arch": "llama", "layers": 2, "hidden": 256, "feed_forward": 512, "heads": 4, "kv_heads": 2, "head_size": 64,
        "vocabulary": 1024, "context": 1024, "rms_eps": 1e-6, "rope_theta": 10000.0, "tied": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "drop", "told"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            "",
            "names GPT2LMHeadModel, which cannot be exported (known: MistralForCausalLM, LlamaForCausalLM, GemmaForCausalLM)",
        ),
        ({"architectures": []}, "", "names no architecture"),
        ({"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn"}}, "", "rope scaling 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_parameters", "rope scaling 'linear'"),
        ({"hidden_act": "gelu_pytorch_tanh"}, "", "hidden_act is 'gelu_pytorch_tanh' (supported: silu)"),
        ({"hidden_act": "gelu", "sliding_window": 64}, "", "2 faults: sliding_window is 64, llama.cpp would look back"),
        ({"partial_rotary_factor": 0.5}, "", "partial_rotary_factor is 0.5"),
        ({"num_hidden_layers": "2"}, "", "layers is '2', expected a whole number above 0"),
        ({"num_hidden_layers": True}, "", "layers is True"),
        ({"max_position_embeddings": 2**40}, "", "context is 1099511627776"),
        ({"rms_norm_eps": float("nan")}, "", "rms_eps is nan, expected a number above 0"),
        ({"num_attention_heads": 3}, "", "num_attention_heads 3 is not a multiple of num_key_value_heads 2"),
        ({"head_dim": 63}, "", "head_dim 63 is odd, expected an even number"),
        ({"architectures": "MistralForCausalLM"}, "", "names no architecture"),
        ({}, "rms_norm_eps", "no usable 'rms_norm_eps'"),
    ],
)
def test_a_base_that_llama_cpp_could_not_run_as_trained_is_refused(
    base: Path, changes: dict[str, Any], drop: str, told: str
) -> None:
    config(base, drop, **changes)
    with pytest.raises(UserError) as error:
        read_shape(base)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"num_hidden_layers": 3},
            "the base lacks model.layers.2.input_layernorm.weight; lacks model.layers.2.self_attn.q_proj.weight; lacks ",
        ),
        ({"tie_word_embeddings": False}, "the base lacks lm_head.weight: fetch it again, all files from one place"),
        ({"intermediate_size": 500}, "mlp.down_proj.weight as 256 x 512, config.json says 256 x 500; holds "),
        ({"hidden_size": 128}, "holds model.embed_tokens.weight as 1024 x 256, config.json says 1024 x 128; holds "),
        ({"num_key_value_heads": 4}, "k_proj.weight as 128 x 256, config.json says 256 x 256; holds "),
        ({"head_dim": 32}, "o_proj.weight as 256 x 256, config.json says 256 x 128; holds "),
        ({"vocab_size": 2000}, "embed_tokens.weight as 1024 x 256, config.json says 2000 x 256: fetch it again"),
    ],
)
def test_tensors_that_are_not_the_models_of_config_json_are_refused(
    base: Path, changes: dict[str, Any], told: str
) -> None:
    sizes = {name: tensor.shape for name, tensor in open_base(base).items()}
    check_tensors(read_shape(base), sizes)
    config(base, **changes)
    with pytest.raises(UserError) as error:
        check_tensors(read_shape(base), sizes)
    assert told in str(error.value)


def test_a_bias_has_the_rows_of_its_weight(base: Path) -> None:
    shape, sizes = read_shape(base), {name: tensor.shape for name, tensor in open_base(base).items()}
    sizes["model.layers.0.self_attn.q_proj.bias"] = (256,)
    check_tensors(shape, sizes)
    sizes["model.layers.0.self_attn.q_proj.bias"] = (128,)
    with pytest.raises(UserError, match=r"q_proj\.bias as 128, config\.json says 256"):
        check_tensors(shape, sizes)


def gemma(folder: Path, drop: str = "", **changes: Any) -> Path:
    """config.json as Gemma-2B's: what GemmaConfig has by default is not in it."""
    table = {
        "architectures": ["GemmaForCausalLM"], "num_hidden_layers": 18, "hidden_size": 2048, "intermediate_size": 16384,
        "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 256000,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh",
    } | changes  # fmt: skip
    table.pop(drop, None)
    (folder / "config.json").write_text(json.dumps(table))
    return folder


def test_a_gemma_ties_its_embedding_by_default(tmp_path: Path) -> None:
    shape = read_shape(gemma(tmp_path))
    assert (shape.arch, shape.tied, shape.head_size, shape.kv_heads) == ("gemma", True, 256, 1)


@pytest.mark.parametrize(
    ("changes", "drop", "told"),
    [
        ({"hidden_act": "gelu"}, "hidden_activation", "hidden_act is 'gelu' (supported: gelu_pytorch_tanh)"),
        ({"hidden_activation": "silu"}, "", "hidden_activation is 'silu' (supported: gelu_pytorch_tanh)"),
        ({"tie_word_embeddings": False}, "", "tie_word_embeddings is false"),
    ],
)
def test_a_gemma_that_llama_cpp_could_not_run_as_trained_is_refused(
    tmp_path: Path, changes: dict[str, Any], drop: str, told: str
) -> None:
    with pytest.raises(UserError) as error:
        read_shape(gemma(tmp_path, drop, **changes))
    assert told in str(error.value)
