"""Dataset folder + preset -> adapter folder.  `python -m finetune tiny --data artifacts/terminology/dataset --out DIR`"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import importlib.util
import os
import shutil
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.base import Base, base_path, load_base
from contract.contract import load_contract
from contract.example import read_examples
from finetune.checkpoints import begin, told_what_is_kept
from finetune.config import Settings, load_settings, parse_overrides
from finetune.cpu import prepare_cpu
from finetune.parallel.dead_peers import watch_peers
from finetune.parallel.processes import is_main, wait_for_all, world_size
from finetune.parallel.sharding import check_launched, whole_weights
from models.base_folder import base_digest, find_base_folder
from models.tokenizer import load_tokenizer
from plumbing.errors import UserError, run
from plumbing.handover import check_outputs, check_replaceable, new_folder, read_manifest, write_manifest

if TYPE_CHECKING:
    from finetune.memory import Shape
    from finetune.plan import Plan
    from finetune.rows import Row

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
TRACKERS = ("none", "tensorboard", "wandb", "trackio")
ENGINE_PACKAGES = {"unsloth": ("unsloth", "unsloth_zoo"), "peft": ()}


def main() -> None:
    args = _parser().parse_args()
    settings = load_settings(args.preset, args.set)
    data, out = Path(args.data), Path(args.out)
    check_outputs(data, read_manifest(data, "dataset"))
    check_replaceable(out, "adapter")
    check_launched(settings, args.preset)
    _check_trackers(args.report_to)
    base = load_base(settings.base)
    _quiet()
    prepare_cpu()
    started = time.monotonic()
    from finetune.engines import choose_engine, import_engine

    engine = choose_engine(settings, args.preset)
    import_engine(engine)
    folder = find_base_folder(base, settings.base_folder or None)
    finetune(settings, engine, base, folder, args, started)


def finetune(
    settings: Settings, engine: str, base: Base, folder: Path, args: argparse.Namespace, started: float
) -> None:
    """Train and hand the adapter folder on, whole or not at all."""
    from finetune.base_check import check_base
    from finetune.train import save_adapter
    from finetune.train_with_fallback import train_as_planned

    data, out = Path(args.data), Path(args.out)
    with ThreadPoolExecutor(1) as aside:  # reads every byte of the base, while the first plan is made
        digest = aside.submit(base_digest, folder) if not args.plan_only else None
        shape = check_base(folder, base)
        rows, tokenizer = _rows(settings, base, folder, data)
        plans = _plans(settings, parse_overrides(args.set), shape, rows, engine, args.plan_only)
        if digest is None:
            return
        inputs = {"dataset": _digest(data), "base": digest.result()}
    checkpoints = begin(out, settings, inputs, args.resume)
    with watch_peers(checkpoints), told_what_is_kept(checkpoints):
        trained = train_as_planned(plans, settings, engine, folder, rows, tokenizer, checkpoints, args)
        weights = whole_weights(trained.model, settings)
        wait_for_all()  # none leaves while another still receives from it
    if not is_main():
        return
    with told_what_is_kept(checkpoints), new_folder(out, "adapter") as target:
        save_adapter(trained.model, target, base.repo, trained.curve, weights)
        shutil.copyfile(data / "task.toml", target / "task.toml")
        shutil.copyfile(base_path(settings.base), target / "base.toml")
        resolved = dataclasses.asdict(trained.settings) | {
            "engine": engine, "base_folder": str(folder), "preset": args.preset, "processes": world_size()
        }  # fmt: skip
        counts = _counts(trained.model, rows) | {"final_loss": trained.curve[-1]["loss"]} | trained.figures
        write_manifest(target, "adapter", inputs, resolved, counts, PACKAGES + ENGINE_PACKAGES[engine], started)
    shutil.rmtree(checkpoints, ignore_errors=True)
    print(f"final loss {trained.curve[-1]['loss']:.3f} after {time.monotonic() - started:.0f} s; adapter in {out}")


def _rows(settings: Settings, base: Base, folder: Path, data: Path) -> tuple[list[Row], Any]:
    from finetune.rows import tokenize, with_invented

    examples = read_examples(data / "train.jsonl", load_contract(data / "task.toml"))
    tokenizer = load_tokenizer(folder, base)
    examples = with_invented(examples, settings.invented_share, settings.seed)
    return tokenize(examples, base, tokenizer, settings.max_length), tokenizer


def _plans(
    settings: Settings, pinned: Collection[str], shape: Shape, rows: list[Row], engine: str, show_all: bool
) -> list[Plan]:
    """The plans, the best first; none where there is no GPU to plan for.  `show_all` prints what to fall back on too."""
    import torch

    from finetune.engines import precision
    from finetune.plan import make_plans, read_gpu, reason, shared

    lengths = [len(row["input_ids"]) for row in rows]
    if is_main():
        print(
            f"{engine}: {len(rows)} rows, {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all", flush=True
        )
    if not torch.cuda.is_available():
        used = shared(settings, world_size())
        if is_main():
            print(f"plan: batch {used.batch} x {used.accumulation} a process, as the preset says (no GPU to plan for)")
        return []
    gpu = read_gpu(settings.gpu_memory)
    pinned = [*pinned, "batch", "accumulation", "checkpointing", "load_in_4bit"] if not settings.plan else pinned
    plans = make_plans(settings, pinned, shape, lengths, gpu, engine, precision(settings), world_size())
    if is_main():
        print(f"plan: {plans[0]} ({reason(plans[0], settings, pinned, gpu)})", flush=True)
        for plan in plans[1:] if show_all else ():
            print(f"else: {plan}", flush=True)
    return plans


def _digest(data: Path) -> str:
    return hashlib.sha256((data / "train.jsonl").read_bytes()).hexdigest()


def _counts(model: Any, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    trainable, parameters = model.get_nb_trainable_parameters()  # knows that a 4-bit tensor packs two in a byte
    return {
        "rows": len(rows),
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "trained_tokens": sum(sum(row["completion_mask"]) for row in rows),
        "parameters": parameters,
        "trainable": trainable,
    }


def _check_trackers(report_to: str) -> None:
    """Trackers are packages of their own.  Raises UserError for one that is not installed."""
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise UserError(f"--report-to {report_to}: is not installed; `uv pip install {report_to}` into .venv mends it")


def _quiet() -> None:
    """Silence the libraries' own progress bars and advice, ours is printed instead."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m finetune", description="Tune a LoRA adapter on a dataset folder.")
    parser.add_argument("preset", help="a shipped preset (tiny, mistral_7b) or the path of a preset's TOML")
    parser.add_argument("--data", required=True, help="the dataset folder that data_gen wrote")
    parser.add_argument("--out", required=True, help="the adapter folder to write")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of the preset"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of a run that was stopped"
    )
    parser.add_argument("--plan-only", action="store_true", help="print how this machine would train, and stop")
    parser.add_argument("--report-to", choices=TRACKERS, default="none", help="a tracker that follows the training too")
    return parser


if __name__ == "__main__":
    run(main)
