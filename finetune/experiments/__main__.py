"""An experiment's TOML + dataset -> every setting tuned, exported and judged; one table, one picture.

python -m finetune.experiments finetune/presets/experiments/rank.toml --data artifacts/terminology/dataset --out DIR

Each run begins from a fresh base in a process of its own and is judged on the validation split: the test split stays
unseen by whoever picks a setting.  What is finished is kept: the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.experiments.plan import Plan, Run, load_plan
from finetune.experiments.results import FILES, Result, read_result, to_markdown, write_results
from plumbing.errors import UserError, run
from plumbing.handover import check_outputs, read_manifest

Start = Callable[[list[str], Path], str]  # a stage's command, its log file -> its last error line, "" when all is well


@dataclass(frozen=True)
class Place:
    """Where one run's folders are, and the stages that fill them."""

    run: Run
    plan: Plan
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
        """Each stage's name, the folder that it hands on, and its command."""
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


def main() -> int:
    args = _parser().parse_args()
    data, out = Path(args.data), Path(args.out)
    plan, runs = load_plan(Path(args.file))
    _check_out(out)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the stage that runs ends too
    digest = dataset_digest(data)
    places = [Place(one, plan, data, out / "runs" / one.key(digest)) for one in runs]
    results = []
    for number, place in enumerate(places, 1):
        print(f"run {number} of {len(places)}: {place.run.label}", flush=True)
        results.append(make(place, start))
    write_results(out, plan, results, digest)
    print(to_markdown(plan, results) + f"picture: {out / 'results.png'}")
    failed = [result for result in results if result.fault]
    if failed:
        told = "; ".join(f"{result.label}: {result.fault}" for result in failed)
        raise UserError(f"{len(failed)} of {len(results)} runs failed: {told} (the others are kept in {out})")
    return 0


def make(place: Place, start: Start) -> Result:
    """One run's stages from the first that is not finished on; one that fails ends this run, not the others."""
    place.folder.mkdir(parents=True, exist_ok=True)
    kept = True
    for stage, folder, command in place.stages():
        kept = kept and is_finished(folder, stage)
        if kept:
            print(f"  {stage}: kept", flush=True)
            continue
        log = place.folder / f"{stage}.log"
        print(f"  {stage}: python -m {command[0]} (its words: {log})", flush=True)
        fault = start(command, log)
        if fault:
            print(f"  {stage}: failed: {fault}", flush=True)
            return Result(place.run.label, place.run.changes, fault=f"python -m {command[0]}: {fault}")
    return read_result(place.run, place.adapter, place.report)


def is_finished(folder: Path, stage: str) -> bool:
    """A stage's folder appears whole or not at all, so its own manifest says it; a file changed since counts as not."""
    try:
        check_outputs(folder, read_manifest(folder, stage))
    except UserError:
        return False
    return True


def start(command: list[str], log: Path) -> str:
    """Run a stage to its end.  Its code is this project's, so the one line that it ends with is the cause."""
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=subprocess.STDOUT)
    if done.returncode == 0:
        return ""
    told = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2].strip()
    return told.removeprefix("error: ") or f"ended with {done.returncode} and no word"


def dataset_digest(data: Path) -> str:
    """One sha256 for what a run learns from and is judged by."""
    manifest = read_manifest(data, "dataset")
    check_outputs(data, manifest)
    told = {name: manifest["outputs"].get(name) for name in ("train.jsonl", "validation.jsonl", "task.toml")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _check_out(out: Path) -> None:
    """Only an experiment's own folder, or a new one, is written into."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder with --out")
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    others = sorted(names - {"runs", *FILES})
    if others:
        raise UserError(f"{out}: holds {others[0]}, which is no experiment's; name another folder with --out")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.experiments", description="Tune, export and judge a grid or a list of settings."
    )
    parser.add_argument("file", help="the experiment's TOML: preset, and [grid] or [[runs]]")
    parser.add_argument("--data", required=True, help="the dataset folder that data_gen wrote")
    parser.add_argument("--out", required=True, help="the folder for runs/, results.md, results.json and results.png")
    return parser


if __name__ == "__main__":
    run(main)
