"""Facts + task -> dataset folder.  `python -m data_gen terminology --out artifacts/terminology/dataset --show 2`"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path

from contract.contract import Contract, task_path
from contract.errors import UserError, faults_error, run
from contract.example import SPLITS, Example, row_faults
from contract.handover import new_folder, sha256, write_manifest
from data_gen.compose import TaskData, compose, load_task_data, rows_each
from data_gen.facts import Fact, fact_files, read_facts
from data_gen.split import split

Dataset = dict[str, list[Example]]
SEED = 12  # of the seeds 0 to 99 the one whose splits are the most even over the five categories


def main() -> None:
    args = _parser().parse_args()
    started = time.monotonic()
    contract, data, facts_path = load_task_data(args.task)
    facts = read_facts(facts_path, data.texts())
    dataset = make_dataset(contract, data, facts, args.count, args.seed)
    for example in dataset["train"][: args.show]:
        print(f"--- {example.id}\nsystem: {example.system or '(none)'}\nrequest: {example.request}\n{example.response}\n")
    if args.out:
        out = Path(args.out)
        write_dataset(out, args, facts_path, dataset, started)
        print(summary(dataset))
        print(f"sha256 {digest(out)}  {out}")


def make_dataset(contract: Contract, data: TaskData, facts: list[Fact], count: int | None, seed: int) -> Dataset:
    """The rows of every split, each checked against the contract's JSON Schema and by reading it back."""
    rows = rows_each(facts, count)
    dataset = {
        name: [row for fact in members for row in compose(contract, data, fact, rows[fact.id], seed)]
        for name, members in split(facts, seed).items()
    }
    empty = [name for name in SPLITS if not dataset[name]]
    if empty:
        raise UserError(f"no concept falls into {' and '.join(empty)}: {len(facts)} facts are too few; add facts or try --seed")
    faults = row_faults(contract, (dataclasses.asdict(r) | {"keywords": list(r.keywords)} for s in SPLITS for r in dataset[s]))
    if faults:
        raise faults_error("dataset", faults[:10])
    return dataset


def write_dataset(out: Path, args: argparse.Namespace, facts_path: Path, dataset: Dataset, started: float) -> None:
    """The dataset folder, whole or not at all: a file a split, the task, the manifest."""
    with new_folder(out) as folder:
        for name, rows in dataset.items():
            text = "".join(row.to_json() + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
        shutil.copyfile(task_path(args.task), folder / "task.toml")
        inputs = {path.name: sha256(path) for path in fact_files(facts_path)}
        counts = {name: len(rows) for name, rows in dataset.items()}
        write_manifest(folder, "dataset", inputs, {"seed": args.seed, "count": args.count}, counts, started=started)


def digest(folder: Path) -> str:
    """One sha256 over the split files, in order: the dataset's identity."""
    import hashlib

    return hashlib.sha256(b"".join((folder / f"{name}.jsonl").read_bytes() for name in SPLITS)).hexdigest()


def summary(dataset: Dataset) -> str:
    """Rows (and concepts) by category and split, as a text table."""
    categories = sorted({row.category for rows in dataset.values() for row in rows})
    lines = [f"{'rows (concepts)':24}" + "".join(f"{name:>16}" for name in dataset)]
    for category in [*categories, "all"]:
        cells = ""
        for rows in dataset.values():
            chosen = [row for row in rows if category in (row.category, "all")]
            cells += f"{f'{len(chosen)} ({len({row.concept for row in chosen})})':>16}"
        lines.append(f"{category:24}{cells}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen", description="Compose a dataset from a task's facts.")
    parser.add_argument("task", help="a shipped task (terminology) or the path of a task's TOML")
    parser.add_argument("--out", help="the dataset folder to write")
    parser.add_argument("--count", type=_positive, help="rows in all (default: three a concept)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"decides splits, requests and frames (default {SEED})")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N training rows as the model will see them")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


if __name__ == "__main__":
    run(main)
