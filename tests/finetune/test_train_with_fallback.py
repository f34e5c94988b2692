"""What happens around a training: the fallback to a smaller plan when memory runs out, and the progress lines."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import finetune.engines
import finetune.train
from finetune.config import Settings
from finetune.plan import TrainingPlan
from finetune.progress import Meter, make_callback
from finetune.train import check_tracker
from finetune.train_with_fallback import train_as_planned
from plumbing.errors import UserError

LARGE, SMALL = TrainingPlan(8, 1, False, False, True, 20.0, 1.0), TrainingPlan(4, 2, True, True, False, 5.0, 2.0)


@pytest.fixture
def trained_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Trainings that run out of memory above a batch of `limit` rows; what they were called with is kept."""
    seen: dict[str, Any] = {"limit": 8, "batches": [], "resumed": []}

    def load(settings: Settings, engine: str, folder: Path) -> SimpleNamespace:
        return SimpleNamespace(get_nb_trainable_parameters=lambda: (1, 2))

    def train(model: Any, tokenizer: Any, rows: Any, settings: Settings, folder: Path, resume: bool, to: str) -> Any:
        seen["batches"].append(settings.batch)
        seen["resumed"].append(resume)
        if settings.batch > seen["limit"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [{"loss": 1.0}], {"peak_gpu_gib": 10.0}

    monkeypatch.setattr(finetune.engines, "load_model", load)
    monkeypatch.setattr(finetune.train, "train", train)
    return seen


def run(checkpoints: Path, *plans: TrainingPlan, resume: bool = False) -> Any:
    args = argparse.Namespace(resume=resume, report_to="none", out="x")
    return train_as_planned(plans, Settings("tiny"), "peft", Path(), [], None, checkpoints, args)


def test_the_best_plan_is_the_one_that_trains(trained_with: dict[str, Any], tmp_path: Path) -> None:
    trained = run(tmp_path, LARGE, SMALL)
    assert trained_with["batches"] == [8] and trained.settings.batch == 8
    assert trained.figures == {"peak_gpu_gib": 10.0, "planned_gpu_gib": 20.0}


def test_out_of_memory_falls_back_one_step_and_says_so(
    trained_with: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_with["limit"] = 4
    trained = run(tmp_path, LARGE, SMALL)
    assert trained_with["batches"] == [8, 4] and trained.settings.checkpointing and trained.settings.load_in_4bit
    assert "out of memory with 16-bit base, batch 8 x 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "plan.json").read_text())["batch"] == 4


def test_when_no_plan_holds_it_is_one_line(trained_with: dict[str, Any], tmp_path: Path) -> None:
    trained_with["limit"] = 1
    with pytest.raises(UserError, match="memory is too small for 4-bit base, batch 4 x 2"):
        run(tmp_path, LARGE, SMALL)


def test_a_resumed_run_keeps_its_plan(trained_with: dict[str, Any], tmp_path: Path) -> None:
    trained_with["limit"] = 4
    run(tmp_path, LARGE, SMALL)
    trained_with["batches"].clear()
    run(tmp_path, LARGE, SMALL, resume=True)  # today the large plan is thought to fit again
    assert trained_with["batches"] == [4] and trained_with["resumed"][-1]


def test_without_a_gpu_the_preset_is_trained_as_it_is(trained_with: dict[str, Any], tmp_path: Path) -> None:
    assert run(tmp_path).settings == Settings("tiny", cuda_graphs=False)


def test_the_meter_counts_tokens_and_the_first_step_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 16.0, 16.0, 20.0])
    monkeypatch.setattr("finetune.progress.time", SimpleNamespace(monotonic=lambda: next(clock)))
    meter = Meter(100)
    meter.start(0)
    meter.step(1)
    meter.step(3)
    meter.loss = 2.0
    assert meter.line(5) == "step 3/5  loss 2.000  33 tokens/s  6 s left"  # 200 tokens in the 6 s after the first step
    meter.stop()
    assert meter.figures()["tokens_per_second"] == 15.0 and meter.figures()["first_step_seconds"] == 10.0


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss: float) -> None:
    meter = Meter(1)
    meter.start(0)
    meter.step(7)
    state = SimpleNamespace(global_step=7, max_steps=9, is_world_process_zero=True)
    with pytest.raises(UserError, match=r"step 7: the loss is (nan|inf); lower learning_rate"):
        make_callback(meter, ExitStack()).on_log(None, state, None, {"loss": loss})


def test_a_tracker_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match="--report-to trackio: is not installed"):
        check_tracker("trackio")
    check_tracker("none")


def test_what_waits_for_the_first_step_is_called_once_also_when_resumed() -> None:
    calls: list[int] = []
    progress = make_callback(Meter(1.0), ExitStack(), lambda: calls.append(1))
    args, control = SimpleNamespace(), SimpleNamespace(should_save=False, should_log=False)
    state = SimpleNamespace(global_step=10, max_steps=20, is_world_process_zero=True)
    progress.on_train_begin(args, state, control)
    for state.global_step in (11, 12):
        progress.on_step_end(args, state, control)
    assert calls == [1]


@pytest.mark.parametrize(
    ("step", "saves", "wanted"), [(10, True, (True, True)), (11, False, (False, False)), (20, True, (True, False))]
)
def test_a_checkpoint_begins_a_new_mean_and_the_last_step_needs_none(
    step: int, saves: bool, wanted: tuple[bool, bool]
) -> None:
    progress, control = make_callback(Meter(1.0), ExitStack()), SimpleNamespace(should_save=saves, should_log=False)
    state = SimpleNamespace(global_step=9, max_steps=20, is_world_process_zero=True)
    progress.on_train_begin(None, state, control)
    state.global_step = step
    progress.on_step_end(None, state, control)
    assert (control.should_log, control.should_save) == wanted
