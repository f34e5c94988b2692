"""benchmarks.bench_finetune away from a GPU: what it says there, how it reads a loss curve, what its table shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.bench_export import make_model
from benchmarks.bench_finetune import PARAMETERS, export, flop_use, last_epoch_loss, main, read_results, ways_table
from plumbing.errors import UserError
from tests.benchmarks.test_bench_export import SMALL
from tests.conftest import ROOT


def test_the_last_epochs_loss_weighs_each_entry_by_the_steps_it_stands_for() -> None:
    curve = [(1, 9.0), (10, 8.0), (19, 7.0), (20, 6.0), (30, 5.0), (38, 4.0)]  # two epochs of 19 steps
    entries = [{"step": step, "loss": loss} for step, loss in curve]
    assert last_epoch_loss(entries, 2) == pytest.approx((1 * 6 + 10 * 5 + 8 * 4) / 19)
    assert last_epoch_loss(entries, 1) == pytest.approx((9 + 9 * 8 + 9 * 7 + 6 + 10 * 5 + 8 * 4) / 38)


def test_flop_use_is_of_the_devices_peak() -> None:
    assert flop_use(989.5e12 / 4 / PARAMETERS, 2.0, "NVIDIA H200") == pytest.approx(0.5)


def test_the_table_is_relative_to_the_first_way_and_keeps_what_failed() -> None:
    ran = {
        "way": "usual", "plan": "4-bit", "seconds": 100.0, "first_step": 1.0, "tokens_per_second": 10.0,
        "peak_gib": 5.0, "planned_gib": None, "loss": 2.0, "flops_used": 0.1,
    }  # fmt: skip
    lines = ways_table(
        [ran, ran | {"way": "ours", "seconds": 25.0}, {"way": "third", "failed": "no room"}], "X"
    ).splitlines()
    assert "| 4.00 x |" in lines[-2] and "third | failed: no room" in lines[-1]


def test_the_adapter_is_exported_and_every_stage_timed(tmp_path: Path) -> None:
    make_model(tmp_path, SMALL)
    lines = export("q4_k_m", tmp_path, {"process_seconds": 5.0, "seconds": 3.0, "plan": "4-bit"}).splitlines()
    size = (tmp_path / "model" / "model.q4_k_m.gguf").stat().st_size
    seconds = [float(line.split("|")[2].removesuffix(" s ")) for line in lines[2:]]
    assert seconds[:2] == [2.0, 3.0] and seconds[2] > 0.1
    assert seconds[3] == pytest.approx(sum(seconds[:3]), abs=0.2) and f"{size:,} bytes" in lines[4]


def test_what_was_measured_is_kept_and_what_failed_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert read_results(out) == []
    out.write_text('[{"way": "usual", "seconds": 1}, {"way": "ours", "failed": "no room"}]')
    assert read_results(out) == [{"way": "usual", "seconds": 1}]
    for text in ("[", "{}x", "[1]", "7"):
        out.write_text(text)
        with pytest.raises(UserError, match="not what this bench writes"):
            read_results(out)


def test_without_an_adapter_of_this_run_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was trained in this run"):
        export("q4_k_m", tmp_path, {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_finetune", "--data", "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("error: needs a CUDA GPU") and done.stderr.count("\n") == 1


def test_a_way_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--data", "x", "--only", "nope"])
    with pytest.raises(UserError, match="--only nope: matches none of the ways: usual recipe"):
        main()
