"""Facts + task -> dataset folder.  `python -m data_gen terminology --out DIR --show 2`"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from contract.contract import Contract, task_path
from data_gen.compose.dataset import Dataset, Sides, check_splits, concept_groups, make_dataset, summary
from data_gen.compose.split import SEED, split
from data_gen.compose.task_data import load_task_data
from data_gen.facts import read_facts
from data_gen.leaks.certificate import check
from plumbing.errors import UserError, run
from plumbing.handover import check_replaceable

if TYPE_CHECKING:
    from data_gen.teacher.teach import Taught

TEACHERS = "ollama:"  # the only kind of teacher


def main() -> None:
    args = _parser().parse_args()
    started = time.monotonic()
    _check_arguments(args)
    contract, data, facts_path = load_task_data(args.task)
    if args.out and Path(args.out).resolve().parent == facts_path.resolve():
        raise UserError(f"--out {args.out}: lies among the facts; name a folder elsewhere")
    sides = split(read_facts(facts_path, data.texts()), args.seed)
    dataset, taught = make_dataset(contract, data, sides, args.count, args.seed), None
    if args.teacher:
        dataset, taught = _teach(contract, sides, dataset, args)
    from data_gen.leaks.certification import certify, label_sections

    certificate = certify(dataset, concept_groups(sides), label_sections(contract))
    check(certificate)
    for example in dataset["train"][: args.show]:
        print(f"--- {example.id}\nsystem: {example.system or '(none)'}\nrequest: {example.request}")
        print(f"{example.response}\n")
    print(f"{summary(dataset)}\n{certificate.line()}")
    if args.out:
        from data_gen.folder import DatasetParts, write_folder
        from data_gen.publication import publish

        parts = DatasetParts(
            contract, data, task_path(args.task), facts_path, sides, dataset, certificate, _command(args),
            {"seed": args.seed, "count": args.count}, taught,
        )  # fmt: skip
        print(f"sha256 {write_folder(Path(args.out), parts, started)}  {args.out}")
        publish(Path(args.out), args.save_to_disk, args.push, args.private)


def _check_arguments(args: argparse.Namespace) -> None:
    """Raises UserError for everything that can be known before the work begins."""
    needing_out = ("teacher", "save_to_disk", "push")
    for flag in ("out", *needing_out):
        if getattr(args, flag) == "":
            raise UserError(f"--{flag.replace('_', '-')} is empty: is a variable of the shell unset?")
    for flag in needing_out:
        if getattr(args, flag) and not args.out:
            raise UserError(f"--{flag.replace('_', '-')} needs the dataset folder: name one with --out")
    if args.teacher and not re.fullmatch(f"{TEACHERS}.+", args.teacher):
        raise UserError(f"--teacher {args.teacher}: expected ollama:MODEL, for example ollama:qwen2.5:7b")
    if args.private and not args.push:
        raise UserError("--private needs --push OWNER/NAME")
    if args.out:
        check_replaceable(Path(args.out), "dataset")
    if args.push:
        from plumbing.hub import check_push

        check_push(args.push)
    if args.save_to_disk:
        from data_gen.publication import check_target

        check_target(Path(args.out), Path(args.save_to_disk))


def _teach(contract: Contract, sides: Sides, dataset: Dataset, args: argparse.Namespace) -> tuple[Dataset, Taught]:
    """The rows whose records the teacher's model wrote and the checks accepted; the others are left out and listed."""
    from data_gen.teacher.teach import teach

    facts = {fact.id: fact for members in sides.values() for fact in members}
    drafts = [(facts[row.id.rpartition("/")[0]], row) for rows in dataset.values() for row in rows]
    out, model = Path(args.out), args.teacher.removeprefix(TEACHERS)
    journal = out.with_name(f"{out.name}.teacher.jsonl")
    taught = teach(contract, drafts, model, journal, concurrency=args.concurrency, attempts=args.attempts)
    accepted = {row.id: row for row in taught.examples}
    kept = {name: [accepted[row.id] for row in rows if row.id in accepted] for name, rows in dataset.items()}
    failed = f"{len(taught.failed)} of {len(drafts)} rows failed (see {journal})"
    check_splits(kept, f"after teaching: {failed}; try a larger model")
    return kept, taught


def _command(args: argparse.Namespace) -> str:
    """The command that makes the same dataset again."""
    task = args.task if args.task == Path(args.task).stem else Path(args.task).name
    parts = ["python -m data_gen", task, f"--seed {args.seed}"]
    parts += [f"--count {args.count}"] if args.count else []
    parts += [f"--teacher {args.teacher} --attempts {args.attempts}"] if args.teacher else []
    return " ".join([*parts, "--out DIR"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_gen", description="Compose a dataset from a task's facts.")
    parser.add_argument("task", help="a shipped task (terminology) or the path of a task's TOML")
    parser.add_argument("--out", help="the dataset folder to write")
    parser.add_argument("--count", type=_positive, help="rows in all (default: four for each fact)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"decides splits and wording (default {SEED})")
    parser.add_argument("--show", type=_positive, default=0, metavar="N", help="print N training rows in full")
    teacher = "let a model of the Ollama at OLLAMA_HOST write the answers"
    parser.add_argument("--teacher", metavar="ollama:MODEL", help=teacher)
    parser.add_argument("--concurrency", type=_positive, default=4, help="requests to the teacher at once (default 4)")
    parser.add_argument("--attempts", type=_positive, default=3, help="answers for each row at most (default 3)")
    parser.add_argument("--save-to-disk", metavar="DIR", help="write it as a datasets.DatasetDict too")
    parser.add_argument("--push", metavar="OWNER/NAME", help="publish the folder on the Hugging Face Hub")
    parser.add_argument("--private", action="store_true", help="if --push creates a repository, make it private")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    run(main)
