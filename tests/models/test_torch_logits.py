"""models.torch_model: the logits of the model as it was trained, with one matrix in memory at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import torch_model
from models.torch_model import load_model, logits_memory, torch_logits
from plumbing.errors import UserError
from tests.conftest import make_small_adapter, make_small_base

ROWS = [([1, 5, 9, 300, 12, 700], 3), ([1, 40, 41, 42, 43, 44, 45, 46, 47, 2], 1), ([1, 7], 1)]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tied": ({}, {}),
    "untied, rslora": ({"tie_word_embeddings": False}, {"use_rslora": True}),
    "modules trained whole": ({"tie_word_embeddings": False}, {"modules_to_save": ["lm_head", "norm", "embed_tokens"]}),
    "a LoRA of the output matrix": ({"tie_word_embeddings": False}, {"target_modules": ["q_proj", "lm_head"]}),
    "gemma": ({"family": "Gemma", "num_key_value_heads": 1, "head_dim": 96}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_whole_model(tmp_path: Path, case: str) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    shape, lora = CASES[case]
    base = make_small_base(tmp_path / "base", **shape)
    adapter = make_small_adapter(base, tmp_path / "adapter", **lora)
    weights = load_file(adapter / "adapter_model.safetensors")
    changed = {n: t * 1.5 if ".lora_" not in n and "base_layer" not in n else t for n, t in weights.items()}
    save_file(changed, adapter / "adapter_model.safetensors")  # modules trained whole differ from the base's
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    untuned = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for model, folder in ((tuned, adapter), (untuned, None)):
        found, whole = torch_logits(base, folder, "16bit", ROWS), load_model(base, folder)
        for rows, (ids, start) in zip(found, ROWS, strict=True):
            with torch.inference_mode():
                expected, ours = (
                    m(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].numpy() for m in (model, whole)
                )
            assert rows.shape == expected.shape and np.abs(rows - expected).max() < 1e-4 * expected.std()
            assert np.abs(ours - expected).max() < 1e-5 * expected.std()


def test_a_matrix_is_in_memory_at_a_time(
    small_base: Path, small_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []
    most = 0

    def read(tensor: Any) -> Any:
        nonlocal most
        weight = real(tensor)
        alive.append(weakref.ref(weight.untyped_storage()))
        alive[:] = [one for one in alive if one() is not None]
        most = max(most, len(alive))
        return weight

    real = torch_model._read
    monkeypatch.setattr(torch_model, "_read", read)
    torch_logits(small_base, small_adapter, "16bit", ROWS)
    assert most == 1


def test_too_little_memory_is_reported_before_anything_is_loaded(
    small_base: Path, small_adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_model, "available_memory", lambda: 700_000_000)
    monkeypatch.delattr(torch_model, "load_model")
    with pytest.raises(UserError, match=r"^needs 8\d\d MB of memory, 700 MB are available; close other programs$"):
        torch_logits(small_base, small_adapter, "16bit", ROWS)


def test_memory_grows_with_the_answers_and_the_largest_matrix_alone(tmp_path: Path) -> None:
    few = make_small_base(tmp_path / "few")
    many = make_small_base(tmp_path / "many", num_hidden_layers=6)
    wide = make_small_base(tmp_path / "wide", intermediate_size=8192)
    assert logits_memory(few, ROWS) == logits_memory(many, ROWS) < logits_memory(few, ROWS * 2)
    assert logits_memory(wide, ROWS) > logits_memory(few, ROWS)
