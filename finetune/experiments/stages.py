"""One run of an experiment -> its adapter, model and report folders.  Finished stages are kept."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.experiments.plan import ExperimentPlan, Run
from finetune.experiments.results import RunResult, read_result
from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest

Start = Callable[[list[str], Path], str]  # a stage's command, its log file -> its last error line, "" after success


@dataclass(frozen=True)
class RunFolder:
    """The folders of one run, and the stages that fill them."""

    run: Run
    plan: ExperimentPlan
    data: Path
    folder: Path

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def model(self) -> Path:
        return self.folder / f"model-{self.plan.type}"

    @property
    def report(self) -> Path:
        return self.folder / f"report-{self.plan.type}-{self.plan.limit or 'all'}"

    def stages(self) -> list[tuple[str, Path, list[str]]]:
        """Each stage's name, its output folder, and its command."""
        overrides = [word for text in self.run.overrides for word in ("--set", text)]
        limit = ["--limit", str(self.plan.limit)] if self.plan.limit else []
        gguf = str(self.model / f"model.{self.plan.type}.gguf")
        data, adapter, model, report = map(str, (self.data, self.adapter, self.model, self.report))
        return [
            ("adapter", self.adapter, ["finetune", self.plan.preset, "--data", data, "--out", adapter, *overrides]),
            ("model", self.model, ["quantize", adapter, "--out", model, "--type", self.plan.type]),
            ("report", self.report, ["eval.adherence", "--gguf", gguf, "--data", data, "--split", "validation",
                                     "--out", report, *limit]),
        ]  # fmt: skip


def make(place: RunFolder, start: Start) -> RunResult:
    """Do the stages of one run, from the first that is not finished.  A failure ends this run, not the others."""
    place.folder.mkdir(parents=True, exist_ok=True)
    kept = True
    for stage, folder, command in place.stages():
        kept = kept and is_finished(folder, stage)
        if kept:
            print(f"  {stage}: kept", flush=True)
            continue
        log = place.folder / f"{stage}.log"
        print(f"  {stage}: python -m {command[0]} (its output: {log})", flush=True)
        fault = start(command, log)
        if fault:
            print(f"  {stage}: failed: {fault}", flush=True)
            return RunResult(place.run.label, place.run.changes, fault=f"python -m {command[0]}: {fault}")
    return read_result(place.run, place.adapter, place.report)


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
