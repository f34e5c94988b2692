"""A run's folder + a dataset -> the step of its deployment that changed adherence or answers.

python -m eval.attribute artifacts/terminology/tiny --limit 20

The same requests go through the base and the adapter in torch, the f16 and the quantised GGUF in this process, the
quantised one through Ollama, and Ollama held to the contract's JSON Schema; each step is paired with the one before it.
Beside the answers: KL divergence and top-1 agreement over the expected answers (eval/attribute/logits.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from contract.example import Example
from eval.attribute.logits import Agreement, agree, forced_rows, llama_logits, open_llama, torch_logits
from eval.attribute.notes import notes_of
from eval.attribute.steps import Deployment, Step, base_folder, open_steps, read_deployment
from eval.attribute.table import Answered, Attribution, measured, to_text
from eval.exam.arguments import DATA
from eval.exam.asking import Question, ask_all, conversations, plan
from eval.exam.conditions import sample
from eval.exam.data import read_data
from eval.exam.leak_checks import check_prompts
from eval.exam.tally import progress
from models.ollama_address import server_url
from models.torch_model import load_model
from plumbing.errors import UserError, run
from plumbing.handover import MANIFEST, check_replaceable, new_folder, sha256, write_manifest

STAGE = "attribute"


def main() -> None:
    args = _parser().parse_args()
    started = time.monotonic()
    contract, splits = read_data(Path(args.data), "test")
    deployment = read_deployment(Path(args.run), contract)
    out = Path(args.out) if args.out else deployment.folder / "attribute"
    check_replaceable(out, STAGE)
    examples = sample(splits["test"], args.limit)
    with open_steps(deployment, server_url(args.host), args.model) as steps:
        answered = _answered(deployment, steps, _questions(deployment, examples))
    agreements, unmeasured = _agreements(deployment, steps, examples)
    left_out = {step.name: step.missing for step in steps if not step.open} | unmeasured
    notes = tuple(notes_of(deployment, answered))
    found = Attribution(len(examples), deployment.options, measured(answered), left_out, tuple(agreements), notes)
    _write(out, found, answered, args, deployment, started)
    print(f"{to_text(found)}{out / 'attribute.md'}")


def _questions(deployment: Deployment, examples: Sequence[Example]) -> list[Question]:
    asked = conversations(deployment.contract, "served", [], examples)
    check_prompts(deployment.contract, asked)
    return plan(asked, "served", (0.0,), 1, deployment.options["seed"])


def _answered(deployment: Deployment, steps: Sequence[Step], questions: Sequence[Question]) -> list[Answered]:
    """Every step's answers.  Raises UserError when fewer than two steps are there."""
    there = [step for step in steps if step.open]
    if len(there) < 2:
        reasons = "; ".join(f"{step.name}: {step.missing}" for step in steps if not step.open)
        raise UserError(f"{deployment.folder}: {len(there)} step there, two are needed to compare; left out: {reasons}")
    found = []
    for step in there:
        print(step.name, file=sys.stderr, flush=True)
        assert step.open is not None
        with step.open() as backend, progress(len(questions)) as told:
            rows = ask_all(deployment.contract, backend, questions, told=told)
            found.append(Answered(step.name, rows, backend.pins()))
    return found


def _agreements(
    deployment: Deployment, steps: Sequence[Step], examples: Sequence[Example]
) -> tuple[list[Agreement], dict[str, str]]:
    """The f16 GGUF against the adapter in torch, and the quantised against the f16; or why one is left out."""
    _, torch, f16, quantised, *_ = steps
    found, left_out = [], {}
    for step, reference in ((f16, torch), (quantised, f16)):
        what = f"logits of {step.name} against {reference.name}"
        missing = [one.name for one in (step, reference) if not one.open]
        if missing:
            left_out[what] = f"without {' and '.join(missing)}"
            continue
        print(what, file=sys.stderr, flush=True)
        try:
            found.append(_agreement(deployment, step.name, reference.name, reference is torch, examples))
        except UserError as error:
            left_out[what] = str(error)
    return found, left_out


def _agreement(
    deployment: Deployment, name: str, reference: str, in_torch: bool, examples: Sequence[Example]
) -> Agreement:
    num_ctx = deployment.options["num_ctx"]
    with open_llama(deployment.gguf("model-f16"), num_ctx) as f16:
        rows = forced_rows(f16, deployment.served("model-f16"), examples)
        if in_torch:
            model = load_model(base_folder(deployment), deployment.folder / "adapter")
            return agree(name, llama_logits(f16), reference, torch_logits(model), rows, num_ctx)
        with open_llama(deployment.gguf("model"), num_ctx) as quantised:
            return agree(name, llama_logits(quantised), reference, llama_logits(f16), rows, num_ctx)


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
        inputs = {"dataset": sha256(Path(args.data) / "manifest.json")} | {
            name: sha256(deployment.folder / name / MANIFEST) for name in deployment.manifests
        }
        settings = {"limit": args.limit, "model": args.model, "options": deployment.options}
        counts = {"requests": found.requests, "steps": len(found.steps), "left_out": len(found.left_out)}
        write_manifest(folder, STAGE, inputs, settings, counts, started=started)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval.attribute", description="Name the step of a deployment that changed adherence or answers."
    )
    parser.add_argument("run", metavar="RUN_DIR", help="holds adapter/, model-f16/ and model/, as `make demo` writes")
    parser.add_argument("--data", default=DATA, help=f"the dataset folder (default {DATA})")
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="ask N rows of its test split, even over categories and concepts"
    )
    parser.add_argument("--out", help="the folder to write (default: attribute in RUN_DIR)")
    parser.add_argument("--host", help="Ollama's address (default: OLLAMA_HOST, else http://127.0.0.1:11434)")
    parser.add_argument(
        "--model", metavar="NAME", help="what model/ is registered as (default: it is registered meanwhile)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


if __name__ == "__main__":
    run(main)
