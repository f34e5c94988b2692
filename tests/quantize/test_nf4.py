"""quantize.nf4 and `--onto nf4`: the values of bitsandbytes, the export onto them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.tensors import Tensor, open_base, open_file
from plumbing.errors import UserError
from plumbing.handover import read_manifest, write_manifest
from quantize.export import export
from quantize.nf4 import LEVELS, Nf4, four_bit_base, onto_nf4
from tests.conftest import ROOT, make_small_adapter

NAME = "model.layers.0.mlp.up_proj.weight"
# As bitsandbytes 0.50.2 makes them of `matrix(320, 256)` in bfloat16, by its quantize_4bit and dequantize_4bit.
OF_BITSANDBYTES = {False: "fc696748cad1635e", True: "6c76681f413c19d4"}


def matrix(rows: int, columns: int) -> np.ndarray:
    """Values that bfloat16 may round, the same on every machine; some rows far larger, one of zeros."""
    values = np.random.default_rng(0).integers(-1000, 1000, (rows, columns)).astype(np.float32) / 32768
    values[3] *= 16
    values[5] = 0
    return values


def saved(folder: Path, values: np.ndarray, dtype: str = "bfloat16") -> dict[str, Tensor]:
    import torch
    from safetensors.torch import save_file

    save_file({NAME: torch.from_numpy(values).to(getattr(torch, dtype))}, folder / "model.safetensors")
    return open_file(folder / "model.safetensors")


@pytest.mark.parametrize("double", [False, True])
def test_values_are_those_of_bitsandbytes(tmp_path: Path, double: bool) -> None:
    tensors, difference = onto_nf4(saved(tmp_path, matrix(320, 256)), double)
    values = tensors[NAME].read()
    assert hashlib.sha256(values.tobytes()).hexdigest()[:16] == OF_BITSANDBYTES[double]
    assert 0.08 < difference.relative() < 0.1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("double", [False, True])
def test_values_are_those_of_bitsandbytes_itself(tmp_path: Path, double: bool, dtype: str) -> None:
    """Where it is installed.  Of the doubly quantised, its CPU code rounds 1 scale of 1000 to the second nearest level."""
    functional = pytest.importorskip("bitsandbytes.functional")
    import torch

    values = matrix(1024, 512)
    ours = onto_nf4(saved(tmp_path, values, dtype), double)[0][NAME].read()
    weight = torch.from_numpy(values).to(getattr(torch, dtype))
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    wanted = functional.dequantize_4bit(packed, state).float().numpy()
    if double:
        close = np.abs(ours - wanted) <= 1e-6 * np.abs(wanted).max()
        assert close.mean() > 0.99 and np.abs(ours - wanted).max() < 0.01 * np.abs(wanted).max()
    else:
        assert np.array_equal(ours, wanted)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(1000, 352), (130, 96)])
def test_rows_are_those_of_the_whole(tmp_path: Path, double: bool, shape: tuple[int, int]) -> None:
    tensor = onto_nf4(saved(tmp_path, matrix(*shape)), double)[0][NAME]
    parts = [tensor.rows(0, 64), *(tensor.rows(start, start + 128) for start in range(64, shape[0], 128))]
    assert np.array_equal(np.concatenate([part.read() for part in parts]), tensor.read())
    assert np.array_equal(tensor.rows(64, shape[0]).rows(64, shape[0]).read(), tensor.read()[128:])


def test_a_value_is_its_blocks_largest_times_the_nearest_level(tmp_path: Path) -> None:
    values = matrix(64, 64)
    made = onto_nf4(saved(tmp_path, values, "float32"), double=False)[0][NAME].read()
    largest = np.abs(values).max(axis=1, keepdims=True)
    levels = (largest * LEVELS)[:, None, :]
    nearest = np.abs(values[:, :, None] - levels).min(axis=2)
    assert np.allclose(np.abs(made - values), nearest, atol=1e-7)


def test_the_linear_layers_alone_are_in_4_bits(small_base: Path) -> None:
    tensors, _ = onto_nf4(open_base(small_base), double=True)
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert {name.split(".")[-2] for name, tensor in tensors.items() if isinstance(tensor, Nf4)} == set(parts)
    assert {name.split(".")[-2] for name, tensor in tensors.items() if not isinstance(tensor, Nf4)} == {
        "embed_tokens", "norm", "input_layernorm", "post_attention_layernorm",
    }  # fmt: skip


def adapter_of(small_base: Path, folder: Path, **settings: Any) -> Path:
    make_small_adapter(small_base, folder)
    old = read_manifest(folder, "adapter")
    write_manifest(folder, "adapter", old["inputs"], old["settings"] | settings, {})
    return folder


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_an_export_onto_the_4_bit_base_is_the_check_of_that(small_base: Path, tmp_path: Path, engine: str) -> None:
    adapter = adapter_of(small_base, tmp_path / "adapter", load_in_4bit=True, engine=engine)
    command = ["quantize", adapter, "--out", tmp_path / "model", "--type", "f16", "--onto", "nf4"]
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert "onto the 4-bit base: its linear layers differ from the 16-bit base's by 9." in done.stdout, done.stderr
    manifest = read_manifest(tmp_path / "model", "model")
    assert manifest["settings"]["onto"] == "nf4" and 0.08 < manifest["counts"]["onto_difference"] < 0.1
    check = [sys.executable, "-m", "quantize.check", str(tmp_path / "model"), "--json"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    exported, bases = json.loads(done.stdout)["compared"]
    assert (bases["measured"], bases["reference"], bases["faults"]) == ("torch on 16bit", "torch on nf4", [])
    assert bases["kl_mean"] > 10 * exported["kl_mean"]  # the choice of base moves far more than the export
    # Held against the 16-bit base, the same file is found wanting: so much does the base matter.
    path = tmp_path / "model" / "manifest.json"
    path.write_text(json.dumps(manifest | {"settings": manifest["settings"] | {"onto": "16bit"}}))
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stdout + done.stderr


def test_whoever_trained_in_4_bits_is_told_onto_which_base_it_went(small_base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(small_base, tmp_path / "adapter", load_in_4bit=True, engine="peft")
    for options, told in (
        ([], "merged onto the 16-bit one (--onto nf4 takes the other); what that changes in the answers: python -m"),
        (["--base-only"], ""),
    ):
        command = ["quantize", adapter, "--out", tmp_path / "model", "--type", "f16", *options]
        done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and told in done.stdout, done.stderr
        assert ("4-bit" in done.stdout) == bool(told)


def test_what_was_not_trained_in_4_bits_is_refused(small_base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(small_base, tmp_path / "adapter", load_in_4bit=False, engine="peft")
    with pytest.raises(UserError, match="was trained on the 16-bit base"):
        export(adapter, tmp_path / "model", "f16", onto="nf4")
    with pytest.raises(UserError, match="--onto nf4 is for an adapter"):
        export(adapter, tmp_path / "model", "f16", base_only=True, onto="nf4")
    with pytest.raises(UserError, match="leave --onto nf4 out"):
        four_bit_base({}, adapter)
