"""quantize.check_torch: the logits of the model as it was trained, with a matrix in memory at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbing.errors import UserError
from quantize import check_torch, preflight
from quantize.check import check, open_source, read_pairs
from quantize.check_torch import torch_logits, torch_memory
from quantize.export import export
from tests.conftest import make_small_adapter, make_small_base

ANSWERS = [([1, 5, 9, 300, 12, 700], 3), ([1, 40, 41, 42, 43, 44, 45, 46, 47, 2], 1), ([1, 7], 1)]
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
    whole = {n: t * 1.5 if ".lora_" not in n and "base_layer" not in n else t for n, t in weights.items()}
    save_file(whole, adapter / "adapter_model.safetensors")  # modules trained whole differ from the base's
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    untuned = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for model, folder in ((tuned, adapter), (untuned, None)):
        found = torch_logits(base, folder, "16bit", ANSWERS)
        for rows, (ids, start) in zip(found, ANSWERS, strict=True):
            with torch.inference_mode():
                wanted = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].numpy()
            assert rows.shape == wanted.shape and np.abs(rows - wanted).max() < 1e-4 * wanted.std()


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

    real = check_torch._read
    monkeypatch.setattr(check_torch, "_read", read)
    torch_logits(small_base, small_adapter, "16bit", ANSWERS)
    assert most == 1


def test_too_little_memory_is_told_before_anything_is_made(
    small_base: Path, small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    export(small_adapter, tmp_path / "model", "q8_0")
    source = open_source(tmp_path / "model", str(small_adapter), str(small_base))
    monkeypatch.setattr(preflight, "_available", lambda: 700_000_000)
    with pytest.raises(UserError, match=r"^needs 8\d\d MB of memory, 700 MB are available; close other programs$"):
        check(source, read_pairs(source, None))
    assert capsys.readouterr().err == ""


def test_memory_grows_with_the_answers_and_the_largest_matrix_alone(tmp_path: Path) -> None:
    few = make_small_base(tmp_path / "few")
    many = make_small_base(tmp_path / "many", num_hidden_layers=6)
    wide = make_small_base(tmp_path / "wide", intermediate_size=8192)
    assert torch_memory(few, ANSWERS) == torch_memory(many, ANSWERS) < torch_memory(few, ANSWERS * 2)
    assert torch_memory(wide, ANSWERS) > torch_memory(few, ANSWERS)


def test_too_small_a_temporary_folder_is_told_with_what_to_do(
    small_base: Path, small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(small_adapter, tmp_path / "model", "q8_0")
    source = open_source(tmp_path / "model", str(small_adapter), str(small_base))
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(UserError, match="set TMPDIR to a folder that has it, or export with --type f16 as well"):
        check(source, read_pairs(source, None))
