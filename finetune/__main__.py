"""Dataset folder + preset -> adapter folder.  `python -m finetune PRESET --data DIR --out DIR`"""

from __future__ import annotations

import argparse
import dataclasses
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
from finetune.checkpoints import begin, explain_interruption
from finetune.config import PRESETS, Settings, load_settings, parse_overrides
from finetune.cpu import prepare_cpu
from finetune.parallel.processes import is_main, wait_for_all, world_size
from finetune.parallel.sharding import check_launched, whole_weights
from finetune.train import TRACKERS, check_tracker
from models.base_folder import base_digest, find_base_folder
from models.tokenizer import load_tokenizer
from plumbing.errors import run
from plumbing.handover import check_outputs, check_replaceable, new_folder, read_manifest, sha256, write_manifest

if TYPE_CHECKING:
    from finetune.plan import TrainingPlan
    from finetune.rows import Row
    from models.shape import Shape

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
ENGINE_PACKAGES = {"unsloth": ("unsloth", "unsloth_zoo"), "peft": ()}


def main() -> None:
    args = _parser().parse_args()
    settings = load_settings(args.preset, args.set)
    data, out = Path(args.data), Path(args.out)
    check_outputs(data, read_manifest(data, "dataset"))
    check_replaceable(out, "adapter")
    check_launched(settings, args.preset)
    check_tracker(args.report_to)
    base = load_base(settings.base)
    _silence_libraries()
    prepare_cpu()
    started = time.monotonic()
    from finetune.engines import choose_engine

    engine = choose_engine(settings, args.preset)
    if engine == "unsloth":  # it patches trl, transformers and peft when they are imported, so it must be first
        import unsloth  # noqa: F401
    folder = find_base_folder(base, settings.base_folder or None)
    finetune(settings, engine, base, folder, args, started)


def finetune(
    settings: Settings, engine: str, base: Base, folder: Path, args: argparse.Namespace, started: float
) -> None:
    """Train and write the adapter folder, complete or not at all."""
    from finetune.base_check import check_trainable
    from finetune.train import save_adapter
    from finetune.train_with_fallback import train_as_planned

    data, out = Path(args.data), Path(args.out)
    with ThreadPoolExecutor(1) as pool:  # hashes every byte of the base while the plans are made
        digest = pool.submit(base_digest, folder) if not args.plan_only else None
        shape = check_trainable(folder, base)
        rows, tokenizer = _rows(settings, base, folder, data)
        plans = _plans(settings, parse_overrides(args.set), shape, rows, engine, args.plan_only)
        if digest is None:
            return
        inputs = {"dataset": sha256(data / "train.jsonl"), "base": digest.result()}
    checkpoints = begin(out, settings, inputs, args.resume)
    with explain_interruption(checkpoints):
        trained = train_as_planned(plans, settings, engine, folder, rows, tokenizer, checkpoints, args)
        weights = whole_weights(trained.model, settings)
        wait_for_all()  # no process may end while another still receives from it
    if not is_main():
        return
    with explain_interruption(checkpoints), new_folder(out, "adapter") as target:
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

    contract = load_contract(data / "task.toml")
    examples = read_examples(data / "train.jsonl", contract)
    tokenizer = load_tokenizer(folder, base)
    examples = with_invented(contract, examples, settings.invented_share, settings.seed)
    return tokenize(examples, base, tokenizer, settings.max_length), tokenizer


def _plans(
    settings: Settings, pinned: Collection[str], shape: Shape, rows: list[Row], engine: str, show_all: bool
) -> list[TrainingPlan]:
    """The plans, the best first; empty without a GPU.  `show_all` prints the plans to fall back on too."""
    import torch

    from finetune.engines import precision
    from finetune.plan import make_plans, read_gpu, reason, share_of_one

    lengths = [len(row["input_ids"]) for row in rows]
    if is_main():
        print(
            f"{engine}: {len(rows)} rows, {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all", flush=True
        )
    if not torch.cuda.is_available():
        used = share_of_one(settings, world_size())
        if is_main():
            print(f"plan: batch {used.batch} x {used.accumulation} a process, as in the preset (no GPU to plan for)")
        return []
    gpu = read_gpu(settings.gpu_memory)
    pinned = [*pinned, "batch", "accumulation", "checkpointing", "load_in_4bit"] if not settings.plan else pinned
    plans = make_plans(settings, pinned, shape, lengths, gpu, engine, precision(settings), world_size())
    if is_main():
        print(f"plan: {plans[0]} ({reason(plans[0], settings, pinned, gpu)})", flush=True)
        for plan in plans[1:] if show_all else ():
            print(f"else: {plan}", flush=True)
    return plans


def _counts(model: Any, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    trainable, parameters = model.get_nb_trainable_parameters()  # counts two parameters a byte in a 4-bit tensor
    tokens = sum(len(row["input_ids"]) for row in rows)
    counts = {"rows": len(rows), "tokens": tokens, "trained_tokens": sum(sum(row["completion_mask"]) for row in rows)}
    return counts | {"parameters": parameters, "trainable": trainable}


def _silence_libraries() -> None:
    """Turn off the libraries' own progress bars and advice; ours are shown instead."""
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    for name, value in (quiet | {"TOKENIZERS_PARALLELISM": "false"}).items():
        os.environ.setdefault(name, value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m finetune", description="Tune a LoRA adapter on a dataset folder.")
    shipped = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    parser.add_argument("preset", help=f"a shipped preset ({shipped}) or the path of a preset's TOML")
    parser.add_argument("--data", required=True, help="the dataset folder that data_gen wrote")
    parser.add_argument("--out", required=True, help="the adapter folder to write")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of the preset"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint of a run that was stopped"
    )
    parser.add_argument("--plan-only", action="store_true", help="print how this machine would train, then stop")
    parser.add_argument(
        "--report-to", choices=TRACKERS, default="none", help="also report the training to this tracker"
    )
    return parser


if __name__ == "__main__":
    run(main)
