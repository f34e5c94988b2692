"""Facts + task -> dataset folder.  `python -m data_gen terminology --out artifacts/terminology/dataset --show 2`"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from contract.contract import task_path
from contract.errors import run
from contract.handover import check_replaceable, new_folder, sha256, write_manifest
from data_gen.dataset import digest, make_dataset, summary, write_concepts, write_rows, write_task
from data_gen.facts import fact_files, read_facts
from data_gen.split import split
from data_gen.task_data import load_task_data

SEED = 12  # of the seeds 0 to 99 the one whose splits are the most even over the five categories


def main() -> None:
    args = _parser().parse_args()
    started = time.monotonic()
    if args.out:
        check_replaceable(Path(args.out), "dataset")
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
        settings = {"seed": args.seed, "count": args.count}
        with new_folder(out, "dataset") as folder:
            write_rows(folder, dataset)
            write_concepts(folder, sides)
            write_task(folder, task_path(args.task), facts_path)
            counts = {name: len(rows) for name, rows in dataset.items()}
            write_manifest(folder, "dataset", inputs, settings, counts, started=started)
        print(f"sha256 {digest(out)}  {out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen", description="Compose a dataset from a task's facts.")
    parser.add_argument("task", help="a shipped task (terminology) or the path of a task's TOML")
    parser.add_argument("--out", help="the dataset folder to write")
    parser.add_argument("--count", type=_positive, help="rows in all (default: four a concept)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"decides splits and wording (default {SEED})")
    parser.add_argument("--show", type=_positive, default=0, metavar="N", help="print N training rows in full")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows")
    return int(text)


if __name__ == "__main__":
    run(main)
