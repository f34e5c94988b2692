"""A grid or list of settings: the runs it means, what is kept, faults in one line, and two real runs of two steps."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from finetune.experiments.plan import ExperimentPlan, Run, expand, load_plan
from finetune.experiments.results import RunResult, draw, to_markdown
from finetune.experiments.stages import dataset_digest, make, start
from plumbing.errors import UserError
from plumbing.handover import read_manifest, write_manifest
from tests.conftest import ROOT

RANK = ROOT / "finetune/presets/experiments/rank.toml"


def plan_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("plan", "wanted"),
    [
        (ExperimentPlan("tiny", grid={"lora_r": [4, 8]}), [{"lora_r": 4}, {"lora_r": 8}]),
        (ExperimentPlan("tiny", runs=[{"batch": 1}, {"batch": 2}]), [{"batch": 1}, {"batch": 2}]),
        (
            ExperimentPlan("tiny", runs=[{"batch": 1}, {"batch": 2}], grid={"seed": [0, 1]}),
            [{"batch": 1, "seed": 0}, {"batch": 1, "seed": 1}, {"batch": 2, "seed": 0}, {"batch": 2, "seed": 1}],
        ),
    ],
)
def test_a_grid_and_a_list_mean_these_runs(plan: ExperimentPlan, wanted: list[dict[str, Any]]) -> None:
    assert expand(plan) == wanted


def test_the_shipped_example_differs_in_rank_alone() -> None:
    _, runs = load_plan(RANK)
    assert [run.settings.lora_r for run in runs] == [4, 8, 16, 32]
    assert {run.settings.lora_alpha / run.settings.lora_r for run in runs} == {1.0}
    others = [dataclasses.asdict(run.settings) | {"lora_r": 0, "lora_alpha": 0} for run in runs]
    assert all(settings == others[0] for settings in others)


def test_values_reach_the_settings_as_the_toml_has_them(tmp_path: Path) -> None:
    text = 'preset="tiny"\nset={schedule="linear", learning_rate=1e-5}\ngrid={target_modules=[["q_proj"], ["v_proj"]]}'
    _, runs = load_plan(plan_of(tmp_path, text))
    assert [(r.settings.schedule, r.settings.learning_rate) for r in runs] == [("linear", 1e-5)] * 2
    assert [r.settings.target_modules for r in runs] == [["q_proj"], ["v_proj"]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("preset='tiny'\nlimt=3", ["unknown key 'limt' (did you mean 'limit'?)"]),
        ("limit='x'", ["missing key 'preset'", "'limit' is 'x'"]),
        ("preset='tiny'", ["no run: give [grid]"]),
        ("preset='tiny'\nlimit=-1\ngrid={lora_r=[4]}", ["'limit' is below 0"]),
        ("preset='tiny'\ngrid={lora_r=[]}", ["'grid': 'lora_r' has no value"]),
        ("preset='tiny'\ngrid={lora_rr=[1,2], batch=['a', 1]}", ["did you mean 'lora_r'", "'batch' is 'a'"]),
        ("preset='tiny'\nruns=[{batch=1}]\ngrid={batch=[1]}", ["'batch' is in both 'grid' and 'runs'"]),
        ("preset='tiny'\ngrid={batch=[0, 1, -1]}", ["run 1: ", "'batch' is 0", "run 3: ", "'batch' is -1"]),
        ("preset='tiny'\ngrid={batch=[1, 2, 1]}", ["runs 1 and 3 are the same: batch=1"]),
        ("preset='tinny'\ngrid={batch=[1]}", ["tinny: no such preset"]),
        ("preset='tiny'\ngrid={seed=[2026-01-01]}", ["'seed' is datetime.date"]),
        (
            f"preset='tiny'\ngrid={{seed={list(range(40))}, batch={list(range(1, 41))}}}",
            ["means 1600 runs, at most 1000"],
        ),
        ("preset=", ["not valid TOML"]),
    ],
)
def test_all_faults_of_a_plan_stand_in_one_line(tmp_path: Path, text: str, wanted: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_plan(plan_of(tmp_path, text))
    assert "plan.toml: " in str(caught.value) and "\n" not in str(caught.value)
    assert [part for part in wanted if part not in str(caught.value)] == []


def test_a_runs_key_is_its_settings_and_its_data(tmp_path: Path) -> None:
    _, (first, second) = load_plan(plan_of(tmp_path, 'preset="tiny"\nset={batch=2}\ngrid={seed=[0, 1]}'))
    _, (again,) = load_plan(plan_of(tmp_path, 'preset="tiny"\nlimit=9\nruns=[{seed=1, batch=2}]'))
    assert first.key("d") != second.key("d") and second.key("d") == again.key("d") != again.key("other data")


class Stages:
    """Stands in for the real stages: writes the folders that they would, or fails where told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.started = fails, [""][:0]

    def __call__(self, command: list[str], log: Path) -> str:
        self.started.append(command[0])
        if command[0] == self.fails:
            return "no room on the disk"
        folder = Path(command[command.index("--out") + 1])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        rate = {"count": 1, "n": 2, "share": 0.5, "low": 0.1, "high": 0.9}
        (folder / "report.json").write_text(json.dumps({"adherence": rate, "named": rate}))
        stage = {"finetune": "adapter", "quantize": "model", "eval.adherence": "report"}[command[0]]
        write_manifest(folder, stage, {}, {}, {"trainable": 7, "final_loss": 1.5}, started=time.monotonic())
        return ""


Place = tuple[Run, ExperimentPlan, Path, Path]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    plan, runs = load_plan(RANK)
    return runs[0], plan, Path("data"), tmp_path / "runs" / "one"


def test_a_finished_run_is_kept_and_what_follows_a_change_is_made_again(place: Place) -> None:
    every = ["finetune", "quantize", "eval.adherence"]
    stages = Stages()
    assert make(*place, stages) == RunResult(
        place[0].label, place[0].changes, "", "runs/one", 7, 1.5, 0.0,
        {"count": 1, "n": 2, "share": 0.5, "low": 0.1, "high": 0.9}, {"count": 1, "n": 2, "share": 0.5, "low": 0.1, "high": 0.9},
    )  # fmt: skip
    assert stages.started == every
    make(*place, stages)
    assert stages.started == every  # nothing ran again
    (place[3] / "model-q4_k_m" / "report.json").write_text("changed")
    make(*place, stages)
    assert stages.started == [*every, "quantize", "eval.adherence"]  # the adapter was kept, the old report was not


def test_a_failed_stage_is_told_and_tried_again(place: Place) -> None:
    failed = make(*place, Stages(fails="quantize"))
    assert failed.fault == "python -m quantize: no room on the disk"
    again = Stages()
    assert make(*place, again).fault == "" and again.started == ["quantize", "eval.adherence"]


def test_a_stages_own_last_line_is_the_cause(tmp_path: Path) -> None:
    assert "no such preset" in start(["finetune", "none", "--data", "x", "--out", "y"], tmp_path / "log")
    assert not start(["finetune", "none", "--data", "x", "--out", "y"], tmp_path / "log").startswith("error: ")
    assert start(["finetune", "--help"], tmp_path / "log") == ""


def test_the_table_and_the_picture_take_failed_and_unjudged_runs(tmp_path: Path) -> None:
    nothing = {"count": 0, "n": 0, "share": None, "low": 0.0, "high": 1.0}
    results = [
        RunResult("a=1", {"a": 1}, "", "", 5, 1.0, 2.0, nothing, nothing),
        RunResult("b=2", {"b": 2}, "x | y"),
    ]
    lines = to_markdown(ExperimentPlan("tiny"), results).splitlines()
    assert {line.count("|") for line in lines[:4]} == {8} and "failed: x / y" in lines[3]
    assert "| nothing to count | nothing to count |" in lines[2]
    draw(results[:1], tmp_path / "one.png")
    draw([], tmp_path / "none.png")  # all failed
    assert (tmp_path / "none.png").read_bytes().startswith(b"\x89PNG")


def experiments(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "finetune.experiments", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_a_folder_of_other_things_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    done = experiments(RANK, "--data", "none", "--out", tmp_path)
    assert done.returncode == 1 and "holds letter.txt" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "dataset"
    subprocess.run([sys.executable, "-m", "data_gen", "terminology", "--out", str(out)], cwd=ROOT, check=True)
    return out


def test_a_killed_experiment_ends_its_stage_too(dataset: Path, tmp_path: Path) -> None:
    """Else the stage goes on alone, into the folder that the same command, given again, writes into."""
    plan, out = plan_of(tmp_path, "preset='tiny'\ngrid={lora_r=[4]}"), tmp_path / "out"
    words = [sys.executable, "-m", "finetune.experiments", str(plan), "--data", str(dataset), "--out", str(out)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not any(log.stat().st_size for log in out.glob("runs/*/adapter.log")) and process.poll() is None:
        time.sleep(0.05)
    (stage,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "stopped: nothing half-written was left behind\n")
    until = time.monotonic() + 5
    while Path("/proc", stage, "exe").exists() and time.monotonic() < until:  # a zombie has none
        time.sleep(0.05)
    assert not Path("/proc", stage, "exe").exists()


def test_a_run_that_fails_and_two_real_ones(dataset: Path, small_base: Path, tmp_path: Path) -> None:
    """Real stages, two steps each; the first setting leaves no row short enough, which only the trainer can find."""
    text = f"preset='tiny'\nlimit=2\nset={{base_folder='{small_base}', max_steps=2, batch=1, invented_share=0}}\n"
    plan, out = plan_of(tmp_path, text + "runs=[{lora_r=4, max_length=8}, {lora_r=2}, {lora_r=4}]"), tmp_path / "out"
    done = experiments(plan, "--data", dataset, "--out", out)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and "longer than" in done.stderr
    assert "1 of 3 runs failed: lora_r=4, max_length=8: python -m finetune: " in done.stderr
    told = json.loads((out / "results.json").read_text())
    assert told["dataset"] == dataset_digest(dataset)
    good = told["runs"][1:]
    assert 2 * good[0]["trainable"] == good[1]["trainable"] > 0
    assert all(one["adherence"]["n"] == 2 and one["loss"] > 0 for one in good)
    report = read_manifest(out / good[0]["folder"] / "report-q4_k_m-2", "report")
    assert report["settings"]["split"] == "validation"
    assert (out / "results.md").read_text() in done.stdout and (out / "results.png").stat().st_size > 5000
    weights = [out / one["folder"] / "adapter/adapter_model.safetensors" for one in good]
    made = [path.stat().st_mtime_ns for path in weights]
    again = experiments(plan, "--data", dataset, "--out", out)
    assert again.stdout.count(": kept") == 6 and [path.stat().st_mtime_ns for path in weights] == made
