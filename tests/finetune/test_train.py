"""python -m finetune as a user runs it, on the small random base: hand-over, resume, bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from finetune.checkpoints import is_complete
from models.base_folder import base_digest
from plumbing.handover import check_outputs, read_manifest
from tests.conftest import ROOT

STEPS = ["--set", "max_steps=4", "--set", "batch=2", "--set", "invented_share=0", "--set", "max_length=2048"]


def finetune(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finetune", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, **kwargs)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "dataset"
    subprocess.run(
        [sys.executable, "-m", "data_gen", "terminology", "--count", "720", "--out", str(out)], cwd=ROOT, check=True
    )
    return out


@pytest.fixture(scope="module")
def adapter(dataset: Path, small_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "adapter"
    done = finetune("tiny", "--data", dataset, "--out", out, "--set", f"base_folder={small_base}", *STEPS)
    assert done.returncode == 0, done.stderr
    return out


def test_the_adapter_folder_explains_itself(adapter: Path, dataset: Path, small_base: Path) -> None:
    manifest = read_manifest(adapter, "adapter")
    check_outputs(adapter, manifest)
    assert manifest["inputs"]["base"] == base_digest(small_base)
    assert manifest["settings"]["engine"] == "peft" and manifest["settings"]["max_steps"] == 4
    assert manifest["counts"]["trained_tokens"] < manifest["counts"]["tokens"]
    names = {"adapter_model.safetensors", "adapter_config.json", "task.toml", "base.toml", "loss.json", "loss.png"}
    assert names <= set(manifest["outputs"])
    assert (adapter / "task.toml").read_bytes() == (dataset / "task.toml").read_bytes()
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "finetune/bases/tiny"  # the base's repo, no path of this machine
    assert not list(adapter.parent.glob(".*"))  # neither checkpoints nor partial folders stay behind


def test_the_loss_curve_is_a_picture_and_numbers(adapter: Path) -> None:
    curve = json.loads((adapter / "loss.json").read_text())
    assert [curve[0]["step"], curve[-1]["step"]] == [1, 4]  # the first and the last, whatever the interval
    assert all(0 < entry["loss"] < 20 for entry in curve)
    assert (adapter / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_killed_run_leaves_no_adapter_and_resumes_to_the_same_weights(
    dataset: Path, small_base: Path, tmp_path: Path
) -> None:
    steps = ["--set", "max_steps=6", "--set", "batch=1", "--set", "invented_share=0", "--set", "save_steps=2"]
    common = ["tiny", "--data", str(dataset), "--set", f"base_folder={small_base}", *steps]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finetune(*common, "--out", whole).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune", *common, "--out", str(killed)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    checkpoints = tmp_path / ".killed.checkpoints"
    while not any(map(is_complete, checkpoints.glob("checkpoint-*"))) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    done = finetune(*common, "--out", killed, "--resume")
    assert done.returncode == 0, done.stderr
    curves = [json.loads((out / "loss.json").read_text()) for out in (whole, killed)]
    assert [[entry["step"] for entry in curve] for curve in curves] == [[1, 2, 4, 6]] * 2
    assert [entry["loss"] for entry in curves[1]] == pytest.approx([entry["loss"] for entry in curves[0]], rel=1e-5)
    first, second = (load_file(out / "adapter_model.safetensors") for out in (whole, killed))
    assert first.keys() == second.keys() and any(
        abs(value).max() > 0 for name, value in first.items() if "lora_B" in name
    )
    assert max(float(abs(first[name] - second[name]).max()) for name in first) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["mistral_7b"], "on a CPU use preset 'tiny'"),
        (["tiny", "--set", "engine=unsloth"], "needs a CUDA GPU"),
        (["tiny", "--set", "base_folder=/nowhere"], "no such base folder"),
        (["tiny", "--set", "max_length=64"], "rows are longer than max_length=64"),
        (["tiny", "--set", "lora_rr=1"], "did you mean 'lora_r'"),
    ],
)
def test_bad_input_is_one_line_and_exit_1(dataset: Path, tmp_path: Path, arguments: list[str], wanted: str) -> None:
    done = finetune(*arguments, "--data", dataset, "--out", tmp_path / "adapter")
    assert done.returncode == 1 and wanted in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "adapter").exists()


def test_a_base_without_tokenizer_model_is_refused(dataset: Path, small_base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "base"
    copy.mkdir()
    for path in small_base.iterdir():
        if path.name != "tokenizer.model":
            (copy / path.name).write_bytes(path.read_bytes())
    done = finetune("tiny", "--data", dataset, "--out", tmp_path / "adapter", "--set", f"base_folder={copy}")
    assert done.returncode == 1 and "no tokenizer.model" in done.stderr and done.stderr.count("\n") == 1


def test_a_loss_that_is_no_number_ends_a_real_run(dataset: Path, small_base: Path, tmp_path: Path) -> None:
    """transformers' own logs would say 0 of it, and an adapter of no numbers would be written."""
    base = Path(shutil.copytree(small_base, tmp_path / "base"))
    weights = load_torch(base / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_torch(weights, base / "model.safetensors", {"format": "pt"})
    done = finetune("tiny", "--data", dataset, "--out", tmp_path / "adapter", "--set", f"base_folder={base}", *STEPS)
    assert done.returncode == 1 and done.stderr.startswith("error: step 1: the loss is nan; lower learning_rate")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "adapter").exists()


def test_a_dataset_that_was_changed_is_refused(dataset: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    (copy / "train.jsonl").write_text((copy / "train.jsonl").read_text().replace("blood", "flood", 1))
    done = finetune("tiny", "--data", copy, "--out", tmp_path / "adapter")
    assert done.returncode == 1 and "changed since it was made: train.jsonl" in done.stderr


@pytest.mark.parametrize(
    "stage", ["data_gen", "finetune", "quantize", "quantize.register", "eval.adherence", "eval.parity", "eval.compare"]
)
def test_help_answers_without_heavy_imports(stage: str) -> None:
    probe = (
        "import runpy, sys\nsys.argv = ['x', '--help']\n"
        f"try: runpy.run_module('{stage}', run_name='__main__')\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'trl', 'unsloth', 'llama_cpp', 'numpy', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout[-200:]
