"""A run's folder + a dataset -> did deployment change the model?  `python -m eval.attribute RUN_DIR`

python -m eval.attribute artifacts/terminology/tiny --limit 20

The same requests go through the base and the adapter in torch, the f16 and the quantised GGUF in this process, the
quantised one through Ollama, and Ollama held to the contract's JSON Schema; each step is paired with the one before it.
Beside the answers: token ids, KL divergence and top-1 agreement over the expected answers (eval/attribute/logits.py).
Exit 2 when one of these misses its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from contract.example import Example
from eval.attribute.deployment import Deployment, read_deployment, with_f16
from eval.attribute.logits import agreements
from eval.attribute.notes import notes_of
from eval.attribute.steps import Step, open_steps
from eval.attribute.table import Answered, Attribution, measured, to_text
from eval.exam.asking import ask_all, conversations, plan
from eval.exam.conditions import sample
from eval.exam.data import read_data
from eval.exam.leak_checks import check_prompts
from eval.exam.tally import progress
from eval.settings import DATA, positive
from models.ollama_address import server_url
from plumbing.errors import UserError, run
from plumbing.handover import MANIFEST, check_replaceable, new_folder, sha256, write_manifest

STAGE = "attribute"


def main() -> int:
    args = _parser().parse_args()
    started = time.monotonic()
    contract, splits = read_data(Path(args.data), "test")
    deployment = read_deployment(Path(args.folder), contract, args.adapter, args.base)
    out = Path(args.out) if args.out else deployment.run / "attribute"
    check_replaceable(out, STAGE)
    examples = sample(splits["test"], args.limit)
    with with_f16(deployment) as complete:
        with open_steps(complete, server_url(args.host), args.model) as steps:
            answered = _answered(complete, steps, examples)
        agreed, unmeasured = agreements(complete, examples)
        notes = tuple(notes_of(complete, answered))
    left_out = {step.name: step.missing for step in steps if not step.open} | unmeasured
    found = Attribution(
        len(examples), deployment.options, measured(answered), left_out, tuple(agreed), not unmeasured,
        deployment.weights, notes,
    )  # fmt: skip
    _write(out, found, answered, args, deployment, started)
    print((out / "attribute.json").read_text("utf-8") if args.json else f"{to_text(found)}{out / 'attribute.md'}")
    return 2 if found.export == "unfaithful" else 0


def _answered(deployment: Deployment, steps: Sequence[Step], examples: Sequence[Example]) -> list[Answered]:
    """Every step's answers.  Raises UserError when fewer than two steps are there."""
    there = [step for step in steps if step.open]
    if len(there) < 2:
        reasons = "; ".join(f"{step.name}: {step.missing}" for step in steps if not step.open)
        raise UserError(
            f"{deployment.run}: only {len(there)} step{'' if there else 's'} can be run; a comparison needs two; "
            f"left out: {reasons}"
        )
    asked = conversations(deployment.contract, "served", [], examples)
    check_prompts(deployment.contract, asked)
    questions = plan(asked, "served", (0.0,), 1, deployment.options["seed"])
    found = []
    for step in there:
        print(step.name, file=sys.stderr, flush=True)
        assert step.open is not None
        with step.open() as backend, progress(len(questions)) as told:
            rows = ask_all(deployment.contract, backend, questions, told=told)
            found.append(Answered(step.name, rows, backend.pins()))
    return found


def _write(
    out: Path, found: Attribution, answered: Sequence[Answered], args: argparse.Namespace, deployment: Deployment,
    started: float,
) -> None:  # fmt: skip
    with new_folder(out, STAGE) as folder:
        table = json.dumps(found.to_dict(), indent=2, ensure_ascii=False)
        (folder / "attribute.json").write_text(table + "\n", encoding="utf-8")
        (folder / "attribute.md").write_text(f"# What each step of the deployment changed\n\n{to_text(found)}", "utf-8")
        for number, step in enumerate(answered, 1):
            lines = [json.dumps({"step": step.step} | row.row(), ensure_ascii=False) + "\n" for row in step.rows]
            (folder / f"answers-{number}.jsonl").write_text("".join(lines), encoding="utf-8")
        inputs = {"dataset": sha256(Path(args.data) / MANIFEST)} | {
            name: sha256(place / MANIFEST) for name, place in deployment.folders.items()
        }
        settings = {"limit": args.limit, "model": args.model, "options": deployment.options}
        counts = {"requests": found.requests, "steps": len(found.steps), "left_out": len(found.left_out)}
        write_manifest(folder, STAGE, inputs, settings, counts, started=started)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.attribute",
        description="Find the step of a deployment that changed the model: its answers, its adherence, its logits.",
    )
    parser.add_argument(
        "folder", metavar="RUN_DIR",
        help="holds adapter/, model/ and maybe model-f16/, as `make demo` writes them; or a model folder alone",
    )  # fmt: skip
    parser.add_argument("--adapter", metavar="DIR", help="what the model was made from (default: adapter in RUN_DIR)")
    parser.add_argument("--base", metavar="DIR", help="the base's folder (default: where the adapter was trained)")
    parser.add_argument("--data", default=DATA, help=f"the dataset folder (default {DATA})")
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="ask N test rows, spread evenly over categories and concepts"
    )
    parser.add_argument("--out", help="the folder to write (default: attribute in RUN_DIR, or beside the model folder)")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    parser.add_argument(
        "--model", metavar="NAME", help="the registered name of model/ (default: a temporary name, removed afterwards)"
    )
    parser.add_argument("--json", action="store_true", help="print attribute.json instead of the table")
    return parser


if __name__ == "__main__":
    run(main)
