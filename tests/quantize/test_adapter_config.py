"""quantize.adapter_config: where PEFT puts a LoRA and of which scale, and configs that a merge would not do justice to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.tensors import open_base
from plumbing.errors import UserError
from quantize.adapter_config import read_adapter_config
from quantize.weights import merge, open_adapter
from tests.conftest import make_small_adapter, make_small_base


@pytest.fixture
def adapter(small_adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_adapter, tmp_path / "adapter"))


def config(adapter: Path, **changes: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


@pytest.mark.parametrize(
    "lora",
    [
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}},
        {"alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 64}},
        {"alpha_pattern": {"self_attn": 64}},
    ],
)
def test_scale_follows_the_modules_own_rank_and_alpha(small_base: Path, tmp_path: Path, lora: dict[str, Any]) -> None:
    from peft import PeftModel
    from transformers import MistralForCausalLM

    folder = make_small_adapter(small_base, tmp_path / "adapter", **lora)
    model = PeftModel.from_pretrained(MistralForCausalLM.from_pretrained(small_base), folder)
    _, ours = open_adapter(folder, open_base(small_base))
    for number in (0, 1):
        for part in ("q_proj", "v_proj"):
            module = model.base_model.model.model.layers[number].self_attn.get_submodule(part)
            assert ours[f"model.layers.{number}.self_attn.{part}.weight"].scale == module.scaling["default"]


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj", "mlp.up_proj"]},
        {"target_modules": ["model.layers.1.self_attn.v_proj", "proj"]},
        {"target_modules": r".*layers\.[02].*\.[qv]_proj"},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {"target_modules": ["q_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 2], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 2], "layers_pattern": ["h", "layers"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "blocks"},
        {"target_modules": ["q_proj", "model.layers.2.mlp.up_proj"], "layers_to_transform": [1]},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["layers.1.mlp.up_proj"]},
        {"target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.1\..*"},
        {"target_modules": ["q_proj", "up_proj"], "modules_to_save": ["mlp"]},
        {"target_modules": ["lm_head"]},
    ],
)
def test_targets_are_those_of_peft(adapter: Path, lora: dict[str, Any]) -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    parts = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")
    modules = [f"model.layers.{number}.{part}" for number in (0, 1, 2, 10) for part in parts] + ["lm_head"]
    ours, theirs = read_adapter_config(config(adapter, **lora)), LoraConfig(**lora)
    found = [bool(check_target_module_exists(theirs, module)) for module in modules]
    assert [ours.targets(module) for module in modules] == found


def test_a_lora_of_the_output_matrix_is_merged_as_in_peft(tmp_path: Path) -> None:
    """PEFT stores the matrix itself beside it, as `lm_head.base_layer.weight`."""
    import torch
    from peft import PeftModel
    from transformers import MistralForCausalLM

    base = make_small_base(tmp_path / "base", tie_word_embeddings=False)
    folder = make_small_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    model = MistralForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    theirs = PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    tensors, loras = open_adapter(folder, open_base(base))
    ours = merge(tensors["lm_head.weight"], loras["lm_head.weight"]).view(np.int32) >> 16
    wanted = theirs["lm_head.weight"].view(torch.int16).numpy().astype(np.int32)
    assert np.abs(ours - wanted).max() <= 1 and (ours != wanted).mean() < 1e-4
    assert not np.array_equal(tensors["lm_head.weight"].read().view(np.int32) >> 16, wanted)


BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "use_dora is set, which a plain merge would lose; train without it"),
    "a bias": ({"bias": "all"}, "bias is 'all'"),
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    "IA3": ({"peft_type": "IA3"}, "peft_type is 'IA3', expected LORA"),
    "a prefix": (
        {"peft_type": "PREFIX_TUNING", "use_dora": True},
        "peft_type is 'PREFIX_TUNING', expected LORA; train",
    ),
    "single tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices is set"),
    "transposed layers": ({"fan_in_fan_out": True}, "fan_in_fan_out is set"),
    "all faults at once": ({"use_dora": True, "bias": "all", "lora_bias": True}, "3 faults: use_dora is set"),
    "rank 0": ({"r": 0}, "r is 0, expected a number above 0; train the adapter again"),
    "alpha 0": ({"lora_alpha": 0}, "lora_alpha is 0, expected a number above 0"),
    "an alpha that is no number": ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
    "an alpha without end": ({"lora_alpha": 10**30}, "lora_alpha is 1000000"),
    "alpha as text": ({"lora_alpha": "16"}, "'lora_alpha' is '16', "),
    "no alpha": ({"lora_alpha": None}, "missing key 'lora_alpha'"),
    "a rank as text": ({"rank_pattern": {"q_proj": "8"}}, "'rank_pattern' is {'q_proj': '8'}"),
    "a module's alpha of 0": ({"alpha_pattern": {"q_proj": 0}}, "alpha_pattern is 0, expected a number above 0"),
    "a list for a table": ({"alpha_pattern": ["q_proj"]}, "'alpha_pattern' is ['q_proj']"),
    "a pattern that is none": ({"rank_pattern": {"(": 8}}, "'(' is not a pattern of module names (missing )"),
    "targets that are none": ({"target_modules": "*"}, "'*' is not a pattern of module names"),
    "a text for a list": ({"modules_to_save": "lm_head"}, "'modules_to_save' is 'lm_head', "),
}


@pytest.mark.parametrize("fault", BAD_CONFIGS)
def test_a_config_that_cannot_be_merged_is_refused(adapter: Path, fault: str) -> None:
    changes, told = BAD_CONFIGS[fault]
    path = config(adapter, **changes)
    with pytest.raises(UserError) as error:
        read_adapter_config(path)
    assert str(error.value).startswith(f"{path}: ") and told in str(error.value)


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"\xff", b"[" * 200_000])
def test_a_file_that_is_no_config_is_refused(adapter: Path, data: bytes) -> None:
    (adapter / "adapter_config.json").write_bytes(data)
    with pytest.raises(UserError, match="not a PEFT adapter's config"):
        read_adapter_config(adapter / "adapter_config.json")
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="no such file: not a finished adapter"):
        read_adapter_config(adapter / "adapter_config.json")
