"""Training by torchrun with two processes on CPUs: DDP and FSDP2 train what one process does, and survive a lost rank."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from trl import SFTConfig

from finetune.checkpoints import is_complete
from finetune.config import load_settings
from finetune.parallel.sharding import fsdp_arguments, make_policy
from plumbing.handover import read_manifest
from tests.conftest import ROOT

SETTINGS = ["max_steps=16", "save_steps=10", "batch=2", "invented_share=0", "precision=fp32"]
FSDP = ["parallel=fsdp", "checkpointing=true"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LAUNCHER = [sys.executable, "-m", "torch.distributed.run"]
TWO = [*LAUNCHER, "--standalone", "--nproc_per_node", "2"]


def command(launcher: list[str], out: Path, data: Path, *settings: str) -> list[str]:
    words = [*launcher, "-m", "finetune", "tiny", "--data", str(data), "--out", str(out)]
    return words + [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, timeout=300)


def curve(out: Path) -> list[float]:
    return [entry["loss"] for entry in json.loads((out / "loss.json").read_text())]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "dataset"
    words = [sys.executable, "-m", "data_gen", "terminology", "--count", "720", "--out", str(out)]
    subprocess.run(words, cwd=ROOT, check=True)
    return out


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same training by one process, by two that each hold the base, and by two that share it."""
    folder = tmp_path_factory.mktemp("trained")
    for name, launcher, settings in (("one", [sys.executable], []), ("ddp", TWO, []), ("fsdp", TWO, FSDP)):
        done = run(command(launcher, folder / name, dataset, *settings))
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.count("final loss") == 1  # one process prints, one writes
    return {name: folder / name for name in ("one", "ddp", "fsdp")}


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_train_what_one_does(trained: dict[str, Path], name: str) -> None:
    """The same rows in every step, so the same curve, and weights that only the order of sums tells apart."""
    one, two = (read_manifest(trained[which], "adapter") for which in ("one", name))
    assert (one["settings"]["processes"], two["settings"]["processes"], two["settings"]["batch"]) == (1, 2, 1)
    assert two["counts"]["trainable"] == one["counts"]["trainable"]
    assert curve(trained[name]) == pytest.approx(curve(trained["one"]), rel=1e-4)
    first, second = (load_file(trained[which] / "adapter_model.safetensors") for which in ("one", name))
    assert {key: value.shape for key, value in first.items()} == {key: value.shape for key, value in second.items()}
    assert max(float(abs(value).max()) for key, value in first.items() if "lora_B" in key) > 1e-3
    assert max(float(abs(first[key] - second[key]).max()) for key in first) < 1e-4


def test_a_16_bit_base_under_lora_in_fp32_is_sharded_too(
    trained: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    """As on GPUs: shards of both kinds in one layer, and a loss that is not rounded to bf16 on its way out."""
    out = tmp_path / "bf16"
    done = run(command(TWO, out, dataset, "parallel=fsdp", "precision=bf16"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert curve(out) == pytest.approx(curve(trained["one"]), rel=5e-3)
    assert 4 < curve(out)[0] < 8 and curve(out)[0] * 32 % 1 != 0  # bf16 has 8 bits: multiples of 1/32 there
    weights = load_file(out / "adapter_model.safetensors")
    assert {str(value.dtype) for value in weights.values()} == {"float32"}


def test_quantize_takes_the_adapter_of_shards(trained: dict[str, Path], tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "quantize", str(trained["fsdp"]), "--out", str(tmp_path / "m"), "--type", "f16"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m" / "model.f16.gguf").stat().st_size > 1e6


def kill_rank(launcher: subprocess.Popen[str], rank: int) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher.pid and f"RANK={rank}".encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
                return
        except (OSError, IndexError):
            continue
    pytest.fail(f"no process of rank {rank}")


@pytest.mark.parametrize(("name", "victim", "settings"), [("ddp", 0, []), ("fsdp", 1, FSDP)])
def test_a_lost_rank_ends_the_job_and_resume_continues(
    trained: dict[str, Path], dataset: Path, tmp_path: Path, name: str, victim: int, settings: list[str]
) -> None:
    out = tmp_path / "adapter"
    words = command(TWO, out, dataset, *settings)
    launcher = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    checkpoint = tmp_path / ".adapter.checkpoints" / "checkpoint-10"
    while not ((checkpoint / "rng_state_1.pth").exists() and is_complete(checkpoint)) and launcher.poll() is None:
        time.sleep(0.01)
    kill_rank(launcher, victim)
    printed, errors = launcher.communicate(timeout=60)  # torchrun ends the survivor
    assert launcher.returncode == 1 and not out.exists()
    assert "the same command with --resume continues" in printed  # before anything could be killed
    assert re.search(rf"rank +: {victim} .*\n.*exitcode +: -9 ", errors), errors
    # The survivor prints its line when it waits for the lost rank, and nothing when torchrun ends it before that.
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert all(line.endswith("with --resume: it continues from checkpoint-10") for line in lines), lines
    assert "[rank" not in errors  # no traceback of a process that only waited
    assert (checkpoint / "pytorch_model_fsdp_0").is_dir() == (name == "fsdp")  # each process wrote its shards
    if name == "ddp":  # its plan is half of the effective batch
        alone = run([*command([sys.executable], out, dataset, *settings), "--resume"])
        assert alone.returncode == 1 and "another number of processes" in alone.stderr
    done = run([*words, "--resume"])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "step 1/" not in done.stderr and curve(out) == pytest.approx(curve(trained[name]), rel=1e-6)
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (trained[name], out))
    assert max(float(abs(first[key] - second[key]).max()) for key in first) < 1e-5


def test_two_launchers_train_one_model_as_two_hosts_would(
    trained: dict[str, Path], dataset: Path, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{probe.getsockname()[1]}"]
    launchers = []
    for rank in ("0", "1"):
        host = [*LAUNCHER, "--nnodes", "2", "--node_rank", rank, "--nproc_per_node", "1", *meet]
        words = command(host, tmp_path / "adapter", dataset, *FSDP)
        launchers.append(subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT))
    printed = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0]
    assert sum(text.count("final loss") for text in printed) == 1  # rank 0 of all hosts, not one a host
    assert curve(tmp_path / "adapter") == pytest.approx(curve(trained["fsdp"]), rel=1e-6)


def test_sharding_needs_a_launcher(dataset: Path, tmp_path: Path) -> None:
    done = run(command([sys.executable], tmp_path / "a", dataset, "parallel=fsdp"))
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "torchrun --nproc_per_node 2 -m finetune tiny" in done.stderr


def test_layers_compute_in_16_bits_and_gradients_are_added_in_32() -> None:
    policies = {kind: make_policy(kind) for kind in ("bf16", "fp16", "fp32")}
    assert {kind: policy.param_dtype for kind, policy in policies.items()} == {
        "bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None
    }  # fmt: skip
    assert {(policy.reduce_dtype, policy.output_dtype) for policy in policies.values()} == {(torch.float32, None)}


def test_ddp_is_the_launchers_alone() -> None:
    assert fsdp_arguments(load_settings("tiny", [])) == {}


def test_shards_hold_no_gradient_back_over_micro_batches() -> None:
    """Torch fails at that where the loss reads the output matrix without gathering it: only CUDA goes that way."""
    given = fsdp_arguments(load_settings("tiny", ["parallel=fsdp"]))["accelerator_config"]
    assert SFTConfig(
        "x", use_cpu=True, bf16=False, accelerator_config=given
    ).accelerator_config.gradient_accumulation_kwargs["sync_each_batch"]
