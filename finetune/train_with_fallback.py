"""Trains by the best plan.  If it still runs out of memory, it falls back to the next smaller plan."""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune.checkpoints import find_checkpoint
from finetune.config import Settings
from finetune.parallel.processes import is_main, wait_for_all, world_size
from finetune.plan import TrainingPlan, share_of_one
from finetune.rows import Row
from plumbing.errors import UserError
from plumbing.handover import new_file


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model with its trained LoRA, how it was trained, and what was measured."""

    model: Any
    settings: Settings
    curve: list[dict[str, float]]
    figures: dict[str, float]


def train_as_planned(
    plans: Sequence[TrainingPlan], settings: Settings, engine: str, folder: Path, rows: list[Row], tokenizer: Any,
    checkpoints: Path, args: argparse.Namespace,
) -> Trained:  # fmt: skip
    """If a plan still runs out of memory, print a line and fall back to the next smaller plan.

    Without plans the settings are used as they are.  A resumed run starts with the plan that it had.
    """
    if args.resume:
        plans = _resumed(checkpoints, plans)
        wait_for_all()  # every process must have read the plan before the first one writes it again
    if args.report_to == "tensorboard":  # otherwise its files would be deleted with the checkpoints
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"{args.out}-{args.report_to}")
    for plan, smaller in zip([*plans] or [None], [*plans[1:], None], strict=True):
        if is_main():
            with new_file(checkpoints / "plan.json") as file:
                file.write_text(json.dumps(plan and dataclasses.asdict(plan)), encoding="utf-8")
        resume = args.resume or find_checkpoint(checkpoints) is not None
        own = dataclasses.replace(share_of_one(settings, world_size()), cuda_graphs=False)
        used = plan.apply(settings) if plan else own
        trained = _attempt(used, engine, folder, rows, tokenizer, checkpoints, resume, args.report_to)
        if trained:
            return _compared(trained, plan)
        if smaller is None or world_size() > 1:
            raise UserError(
                f"the GPU's memory is too small for {plan or 'this preset'}; set a smaller gpu_memory or batch"
            )
        print(f"out of memory with {plan}; falling back to {smaller}", flush=True)
    raise AssertionError("every plan either trains or ends the run")


def _attempt(
    settings: Settings, engine: str, folder: Path, rows: list[Row], tokenizer: Any, checkpoints: Path, resume: bool,
    report_to: str,
) -> Trained | None:  # fmt: skip
    """One training.  Returns None when the GPU ran out of memory, after freeing it."""
    import torch

    from finetune.engines import load_model
    from finetune.train import train

    try:
        model = load_model(settings, engine, folder)
        trainable, parameters = model.get_nb_trainable_parameters()
        if is_main():
            print(f"{engine}: {trainable:,} of {parameters:,} parameters are trained", flush=True)
        curve, figures = train(model, tokenizer, rows, settings, checkpoints, resume, report_to)
        return Trained(model, settings, curve, figures)
    except torch.OutOfMemoryError:
        pass  # the error's frames hold the model, so it can be freed only after this block
    for _ in range(2):  # objects that the first pass finalises still hold a 4-bit base's weights
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return None


def _resumed(checkpoints: Path, plans: Sequence[TrainingPlan]) -> Sequence[TrainingPlan]:
    """The plan of the interrupted run, then the smaller ones."""
    path = checkpoints / "plan.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if kept is None:
        return plans
    first = TrainingPlan(**kept)
    return [first, *(plan for plan in plans if plan.peak < first.peak)]


def _compared(trained: Trained, plan: TrainingPlan | None) -> Trained:
    """Add the plan's predicted memory to the figures."""
    if plan is None:
        return trained
    measured = trained.figures["peak_gpu_gib"]
    if is_main():
        error = plan.peak / measured - 1
        print(f"memory: {measured:.2f} GiB at the peak, {plan.peak:.2f} planned ({error:+.0%})", flush=True)
    return dataclasses.replace(trained, figures=trained.figures | {"planned_gpu_gib": round(plan.peak, 2)})
