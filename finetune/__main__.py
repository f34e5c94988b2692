"""Dataset folder + preset -> adapter folder.  `python -m finetune tiny --data artifacts/terminology/dataset --out DIR`"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from contract.base import Base, base_path, load_base
from contract.base_folder import base_digest, find_base_folder
from contract.contract import load_contract
from contract.errors import UserError, run
from contract.example import read_examples
from contract.handover import check_outputs, check_replaceable, new_folder, read_manifest, write_manifest
from finetune.config import Settings, load_settings
from finetune.cpu import prepare_cpu

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")
ENGINE_PACKAGES = {"unsloth": ("unsloth", "unsloth_zoo"), "peft": ()}


def main() -> None:
    args = _parser().parse_args()
    settings = load_settings(args.preset, args.set)
    data, out = Path(args.data), Path(args.out)
    check_outputs(data, read_manifest(data, "dataset"))
    check_replaceable(out, "adapter")
    base = load_base(settings.base)
    _quiet()
    prepare_cpu()
    started = time.monotonic()
    from finetune.engines import choose_engine

    engine = choose_engine(settings, args.preset)
    folder = find_base_folder(base, settings.base_folder or None)
    finetune(settings, engine, base, folder, args, started)


def finetune(
    settings: Settings, engine: str, base: Base, folder: Path, args: argparse.Namespace, started: float
) -> None:
    """Train and hand the adapter folder on, whole or not at all."""
    from finetune.engines import load_model
    from finetune.rows import tokenize, with_invented
    from finetune.train import clear_checkpoints, save_adapter, train

    data, out = Path(args.data), Path(args.out)
    examples = read_examples(data / "train.jsonl", load_contract(data / "task.toml"))
    examples = with_invented(examples, settings.invented_share, settings.seed)
    model, tokenizer = load_model(settings, engine, folder)
    rows = tokenize(examples, base, tokenizer, settings.max_length)
    inputs = {"dataset": _digest(data), "base": base_digest(folder)}
    checkpoints = _checkpoints(out, settings, inputs, args.resume)
    counts = _counts(model, rows)
    print(
        f"{engine}: {len(rows)} rows, {counts['trainable']:,} of {counts['parameters']:,} parameters are trained",
        flush=True,
    )
    curve = train(model, tokenizer, rows, settings, checkpoints, args.resume)
    with new_folder(out, "adapter") as target:
        save_adapter(model, target, base.repo, curve)
        shutil.copyfile(data / "task.toml", target / "task.toml")
        shutil.copyfile(base_path(settings.base), target / "base.toml")
        resolved = dataclasses.asdict(settings) | {"engine": engine, "base_folder": str(folder), "preset": args.preset}
        counts |= {"final_loss": curve[-1]["loss"]}
        write_manifest(target, "adapter", inputs, resolved, counts, PACKAGES + ENGINE_PACKAGES[engine], started)
    clear_checkpoints(checkpoints)
    print(f"final loss {curve[-1]['loss']:.3f} after {time.monotonic() - started:.0f} s; adapter in {out}")


def _checkpoints(out: Path, settings: Settings, inputs: dict[str, str], resume: bool) -> Path:
    """The checkpoints' folder beside `out`; a run may only resume what the same settings and inputs began."""
    folder = out.with_name(f".{out.name}.checkpoints")
    key = json.dumps([dataclasses.asdict(settings), inputs], sort_keys=True)
    mark = folder / "run.json"
    if resume and not mark.is_file():
        raise UserError(f"{folder}: no checkpoint to resume from; run without --resume")
    if resume and mark.read_text(encoding="utf-8") != key:
        raise UserError(f"{folder}: was begun with other settings, data or base; run without --resume")
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        mark.write_text(key, encoding="utf-8")
    return folder


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
    return parser


if __name__ == "__main__":
    run(main)
