"""Rows + model -> adapter: one TRL SFTTrainer for both engines, with checkpoints, progress lines and the loss curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune.checkpoints import last_checkpoint
from finetune.checks import check_batch, check_precision, check_weights, watch_activations
from finetune.config import Settings
from finetune.engines import precision
from finetune.parallel.processes import world_size
from finetune.parallel.sharding import fsdp_arguments, sample_alike, shard
from finetune.progress import Meter, make_progress
from finetune.rows import Row


def train(
    model: Any,
    tokenizer: Any,
    rows: list[Row],
    settings: Settings,
    checkpoints: Path,
    resume: bool,
    report_to: str = "none",
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Train in place; returns the loss curve as [{step, loss, learning_rate}] and the figures of `Progress`.

    Raises UserError when the batch or the model is not what it should be, or the loss is no number.
    """
    import datasets
    from transformers import PrinterCallback, ProgressCallback
    from trl import SFTTrainer

    datasets.disable_progress_bars()
    tokens = sum(len(row["input_ids"]) for row in rows) / len(rows) * settings.batch * settings.accumulation
    meter = Meter(tokens * world_size())
    trainer = SFTTrainer(
        model=model,
        args=_arguments(settings, checkpoints, report_to),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[make_progress(meter, watch_activations(model, precision(settings)))],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    sample_alike(trainer, rows, settings)
    check_batch(trainer, rows, rows[0]["input_ids"][-1])
    check_precision(model, precision(settings))
    shard(trainer, settings, precision(settings))
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints) if resume else None)
    shown = ("step", "loss", "learning_rate")
    curve = [{key: entry[key] for key in shown} for entry in trainer.state.log_history if "loss" in entry]
    return curve, meter.figures()


def _arguments(settings: Settings, checkpoints: Path, report_to: str = "none") -> Any:
    import torch
    from trl import SFTConfig

    kind = precision(settings)
    return SFTConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulation,  # set always: Unsloth's default is 2
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
        padding_free=False if settings.cuda_graphs else None,  # None: Unsloth lays rows end to end
        train_sampling_strategy="group_by_length",
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # else a loss that is no number is logged as 0, and nobody hears of it
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

    `weights` are the trained tensors where the model itself holds only shards of them.  Raises UserError when one is
    not finite.
    """
    check_weights(weights or {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad})
    model.active_peft_config.base_model_name_or_path = repo  # else the base's folder on this very machine
    # The embeddings were never resized; "auto" would ask the Hub about that.
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card
    (folder / "loss.json").write_text(json.dumps(curve, indent=1) + "\n", encoding="utf-8")
    draw_loss(curve, folder / "loss.png")


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
