"""One run of an experiment -> its adapter, model and report folders.  Finished stages are kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from finetune.experiments.plan import ExperimentPlan, Run
from finetune.experiments.results import RunResult, read_result
from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest

Start = Callable[[list[str], Path], str]  # a stage's command, its log file -> its last error line, "" after success


def commands(run: Run, plan: ExperimentPlan, data: Path, folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """The run's stages in order: name -> the folder that it writes below `folder`, and its command."""
    adapter, model = folder / "adapter", folder / f"model-{plan.type}"
    report = folder / f"report-{plan.type}-{plan.limit or 'all'}"
    overrides = [word for text in run.overrides for word in ("--set", text)]
    gguf, limit = str(model / f"model.{plan.type}.gguf"), ["--limit", str(plan.limit)] if plan.limit else []
    return {
        "adapter": (adapter, ["finetune", plan.preset, "--data", str(data), "--out", str(adapter), *overrides]),
        "model": (model, ["quantize", str(adapter), "--out", str(model), "--type", plan.type]),
        "report": (report, ["eval.adherence", "--gguf", gguf, "--data", str(data), "--split", "validation",
                            "--out", str(report), *limit]),
    }  # fmt: skip


def make(run: Run, plan: ExperimentPlan, data: Path, folder: Path, start: Start) -> RunResult:
    """Do the stages of one run, from the first that is not finished.  A failure ends this run, not the others."""
    folder.mkdir(parents=True, exist_ok=True)
    stages, kept = commands(run, plan, data, folder), True
    for stage, (out, command) in stages.items():
        kept = kept and is_finished(out, stage)
        if kept:
            print(f"  {stage}: kept", flush=True)
            continue
        log = folder / f"{stage}.log"
        print(f"  {stage}: python -m {command[0]} (its output: {log})", flush=True)
        fault = start(command, log)
        if fault:
            print(f"  {stage}: failed: {fault}", flush=True)
            return RunResult(run.label, run.changes, fault=f"python -m {command[0]}: {fault}")
    return read_result(run, stages["adapter"][0], stages["report"][0])


def is_finished(folder: Path, stage: str) -> bool:
    """Whether the stage's folder is complete (it has a manifest) and no file in it was changed since."""
    try:
        check_outputs(folder, read_manifest(folder, stage))
    except UserError:
        return False
    return True


def start(command: list[str], log: Path) -> str:
    """Run a stage to its end.  Returns its last line when it fails: a stage of this project ends with the cause."""
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT)
    if done.returncode == 0:
        return ""
    last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2].strip()
    return last.removeprefix("error: ") or f"ended with exit code {done.returncode} and no output"


def dataset_digest(data: Path) -> str:
    """One sha256 for the rows that a run is trained on and judged by, and the task."""
    manifest = read_manifest(data, "dataset")
    check_outputs(data, manifest)
    digests = {name: manifest["outputs"].get(name) for name in ("train.jsonl", "validation.jsonl", "task.toml")}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
