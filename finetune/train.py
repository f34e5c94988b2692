"""Rows + model -> adapter: one TRL SFTTrainer for both engines, with checkpoints, progress lines and the loss curve."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from contract.errors import UserError
from finetune.config import Settings
from finetune.engines import precision
from finetune.rows import Row


def train(
    model: Any, tokenizer: Any, rows: list[Row], settings: Settings, checkpoints: Path, resume: bool
) -> list[dict[str, float]]:
    """Train in place; returns the loss curve as [{step, loss, learning_rate}].  Raises UserError when the loss is no number."""
    import datasets
    from trl import SFTTrainer

    datasets.disable_progress_bars()
    trainer = SFTTrainer(
        model=model,
        args=_arguments(settings, checkpoints),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[_progress(settings)],
    )
    from transformers import PrinterCallback, ProgressCallback

    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints) if resume else None)
    return [
        {"step": entry["step"], "loss": entry["loss"], "learning_rate": entry["learning_rate"]}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]


def last_checkpoint(checkpoints: Path) -> str:
    """The newest checkpoint's folder.  Raises UserError when there is none."""
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    if not found:
        raise UserError(f"{checkpoints}: no checkpoint to resume from; run without --resume")
    return str(found[-1])


def _arguments(settings: Settings, checkpoints: Path) -> Any:
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
        train_sampling_strategy="group_by_length",
        logging_steps=10,
        logging_first_step=True,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to="none",
        seed=settings.seed,
    )


def _progress(settings: Settings) -> Any:
    """A bar on a terminal, plain lines elsewhere; a loss that is no number stops the run."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.started, self.first = time.monotonic(), state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == state.max_steps:
                control.should_log = True  # the last loss, whatever logging_steps says

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is None:
                return
            if not math.isfinite(loss):
                raise UserError(
                    f"step {state.global_step}: the loss is {loss}; lower learning_rate or use precision=fp32"
                )
            done, all_steps = state.global_step, state.max_steps
            left = (time.monotonic() - self.started) / max(1, done - self.first) * (all_steps - done)
            line = f"step {done}/{all_steps}  loss {loss:.3f}  {left:.0f} s left"
            if sys.stderr.isatty():
                print(f"\r\033[K{line}", end="\n" if done == all_steps else "", file=sys.stderr, flush=True)
            elif done == 1 or done == all_steps or done % 50 == 0:
                print(line, flush=True)

    return Progress()


def save_adapter(model: Any, folder: Path, repo: str, curve: list[dict[str, float]]) -> None:
    """adapter_model.safetensors and adapter_config.json, the loss curve as JSON and as a picture."""
    model.active_peft_config.base_model_name_or_path = repo  # else the base's folder on this very machine
    model.save_pretrained(folder, save_embedding_layers=False)  # never resized; "auto" would ask the Hub about that
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


def clear_checkpoints(checkpoints: Path) -> None:
    shutil.rmtree(checkpoints, ignore_errors=True)
