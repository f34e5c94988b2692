"""Facts + task -> dataset folder.  `python -m data_gen terminology --out artifacts/terminology/dataset --show 2`"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from contract.contract import Contract, task_path
from contract.errors import UserError, faults_error, run
from contract.example import SPLITS, Example, first_faults, row_faults
from contract.handover import check_replaceable, new_folder, sha256, write_manifest
from data_gen.compose import TaskData, compose, load_task_data, rows_each
from data_gen.facts import Fact, fact_files, read_facts
from data_gen.split import split

Dataset = dict[str, list[Example]]  # split -> rows
Sides = dict[str, list[Fact]]  # split -> facts
SEED = 12  # of the seeds 0 to 99 the one whose splits are the most even over the five categories


def main() -> None:
    args = _parser().parse_args()
    started = time.monotonic()
    if args.out:
        check_replaceable(Path(args.out))
    contract, data, facts_path = load_task_data(args.task)
    facts = read_facts(facts_path, data.texts())
    sides = split(facts, args.seed)
    dataset = make_dataset(contract, data, sides, args.count, args.seed)
    for example in dataset["train"][: args.show]:
        print(f"--- {example.id}\nsystem: {example.system or '(none)'}\nrequest: {example.request}")
        print(f"{example.response}\n")
    print(summary(dataset))
    if args.out:
        out = Path(args.out)
        inputs = {path.name: sha256(path) for path in fact_files(facts_path)}
        write_dataset(
            out, task_path(args.task), dataset, sides, inputs, {"seed": args.seed, "count": args.count}, started
        )
        print(f"sha256 {digest(out)}  {out}")


def make_dataset(contract: Contract, data: TaskData, sides: Sides, count: int | None, seed: int) -> Dataset:
    """The rows of every split, each checked against the contract's JSON Schema and by reading it back."""
    facts = [fact for members in sides.values() for fact in members]
    rows = rows_each(facts, count)
    dataset = {
        name: [row for fact in members for row in compose(contract, data, fact, rows[fact.id], seed)]
        for name, members in sides.items()
    }
    empty = [name for name in SPLITS if not dataset[name]]
    if empty:
        cure = "add facts, try another --seed" + (f" or raise --count from {count}" if count else "")
        raise UserError(f"no row falls into {' and '.join(empty)} of {len(facts)} facts: {cure}")
    written = (json.loads(row.to_json()) for name in SPLITS for row in dataset[name])
    faults = list(row_faults(contract, written))
    if faults:
        raise faults_error("dataset", first_faults(faults))
    return dataset


def write_dataset(
    out: Path,
    task: Path,
    dataset: Dataset,
    sides: Sides,
    inputs: dict[str, str],
    settings: dict[str, Any],
    started: float,
) -> None:
    """The dataset folder, whole or not at all: a file a split, the concepts, the task, the manifest."""
    with new_folder(out) as folder:
        for name, rows in dataset.items():
            text = "".join(row.to_json() + "\n" for row in rows)
            (folder / f"{name}.jsonl").write_text(text, encoding="utf-8", newline="\n")
        concepts = json.dumps(concept_groups(sides), indent=1, ensure_ascii=False)
        (folder / "concepts.json").write_text(concepts + "\n", encoding="utf-8", newline="\n")
        shutil.copyfile(task, folder / "task.toml")
        counts = {name: len(rows) for name, rows in dataset.items()}
        write_manifest(folder, "dataset", inputs, settings, counts, started=started)


def concept_groups(sides: Sides) -> dict[str, list[dict[str, Any]]]:
    """The groups of each split with all their names, in order: a later stage proves with them that none leaks."""
    groups: dict[str, dict[str, set[str]]] = {name: {} for name in sides}
    for name, facts in sides.items():
        for fact in facts:
            groups[name].setdefault(fact.group, set()).update(fact.names)
    return {
        side: [{"group": group, "names": sorted(names)} for group, names in sorted(members.items())]
        for side, members in groups.items()
    }


def digest(folder: Path) -> str:
    """One sha256 over the split files, in order: the dataset's identity."""
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
    parser.add_argument("--seed", type=int, default=SEED, help=f"decides splits and wording (default {SEED})")
    parser.add_argument("--show", type=_positive, default=0, metavar="N", help="print N training rows in full")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


if __name__ == "__main__":
    run(main)
