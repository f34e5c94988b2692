"""Rows + model -> adapter and loss curve, by TRL's SFTTrainer for both engines."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from finetune.checkpoints import last_checkpoint
from finetune.checks import check_batch, check_precision, check_weights, watch_activations
from finetune.config import Settings
from finetune.engines import precision
from finetune.parallel.processes import world_size
from finetune.parallel.sharding import fsdp_arguments, sample_alike, shard
from finetune.progress import Meter, make_callback
from finetune.rows import Row
from plumbing.errors import UserError

TRACKERS = ("none", "tensorboard", "wandb", "trackio")


def train(
    model: Any, tokenizer: Any, rows: list[Row], settings: Settings, checkpoints: Path, resume: bool, report_to: str
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Train in place.  Returns the loss curve as [{step, loss, learning_rate}], and the figures of `Meter`.

    Raises UserError when the batch or the model is not as expected, or the loss is not a number.
    """
    import datasets
    from transformers import PrinterCallback, ProgressCallback
    from trl import SFTTrainer

    datasets.disable_progress_bars()
    tokens = sum(len(row["input_ids"]) for row in rows) / len(rows) * settings.batch * settings.accumulation
    meter = Meter(tokens * world_size())
    with contextlib.ExitStack() as stack:
        trainer = SFTTrainer(
            model=model,
            args=_arguments(settings, checkpoints, report_to),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[make_callback(meter, stack, watch_activations(model, precision(settings)))],
        )
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        sample_alike(trainer, rows, settings)
        check_batch(trainer, rows, rows[0]["input_ids"][-1])
        check_precision(model, precision(settings))
        shard(trainer, settings, precision(settings))
        trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints) if resume else None)
    keys = ("step", "loss", "learning_rate")
    curve = [{key: entry[key] for key in keys} for entry in trainer.state.log_history if "loss" in entry]
    return curve, meter.figures()


def _arguments(settings: Settings, checkpoints: Path, report_to: str) -> Any:
    import torch
    from trl import SFTConfig

    kind = precision(settings)
    return SFTConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulation,  # always set: Unsloth's default is 2
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        bf16=kind == "bf16",
        fp16=kind == "fp16",
        gradient_checkpointing=settings.checkpointing,
        max_length=settings.max_length,
        completion_only_loss=True,
        packing=False,
        padding_free=False if settings.cuda_graphs else None,  # None: Unsloth joins rows end to end
        train_sampling_strategy="group_by_length",
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # the default logs a loss of NaN as 0, so that nobody would notice it
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=report_to,
        ddp_find_unused_parameters=False if world_size() > 1 else None,
        seed=settings.seed,
        **fsdp_arguments(settings),
    )


def save_adapter(
    model: Any, folder: Path, repo: str, curve: list[dict[str, float]], weights: dict[str, Any] | None = None
) -> None:
    """adapter_model.safetensors and adapter_config.json, the loss curve as JSON and as a picture.

    `weights` are the trained tensors when the model itself holds only shards of them.  Raises UserError when one is not
    finite.
    """
    check_weights(weights or {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad})
    model.active_peft_config.base_model_name_or_path = repo  # instead of the base's folder on this machine
    # The embeddings were never resized; "auto" would ask the Hub whether they were.
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    (folder / "loss.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    draw_loss(curve, folder / "loss.png")


def check_tracker(report_to: str) -> None:
    """Raises UserError when the tracker's package is not installed."""
    if report_to != "none" and importlib.util.find_spec(report_to) is None:
        raise UserError(
            f"--report-to {report_to}: is not installed; `uv pip install {report_to}` into .venv fixes that"
        )


def draw_loss(curve: list[dict[str, float]], path: Path) -> None:
    """The loss over optimizer steps as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot([entry["step"] for entry in curve], [entry["loss"] for entry in curve])
    axes.set(xlabel="optimizer step", ylabel="loss on response tokens (nats)", title="Training loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
