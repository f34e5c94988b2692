"""What must hold of the real batch and the real model before the first step, and of the weights after the last.  Faults end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune.rows import Row
from plumbing.errors import UserError

SHOWN = 4  # rows in the batch that is looked at


def check_batch(trainer: Any, rows: Sequence[Row], stop: int) -> None:
    """The labels of `trainer`'s own batch are the responses' tokens, no more and no less, each one's last is `stop`.

    Raises UserError: a mask that is wrong trains the question, or never the stop.
    """
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(min(SHOWN, len(rows)))])
    labels = [label for label in batch["labels"].flatten().tolist() if label != -100]
    wanted: list[int] = []
    for row in rows[:SHOWN]:
        completion = [token for token, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if kept]
        if not completion or completion[-1] != stop:
            raise UserError(
                f"a response ends in token {completion[-1:]}, not in the stop ({stop}): mend the base's TOML"
            )
        wanted += completion
    if labels != wanted:
        raise UserError(
            f"the batch trains {len(labels)} tokens, the responses have {len(wanted)}: this version of trl or unsloth "
            "masks otherwise; install the versions in constraints.txt"
        )


def watch_activations(model: Any, precision: str) -> Callable[[], None]:
    """Look at what every module hands on, where the hardware is taken to lack bf16; the function returned ends that.

    It raises UserError naming the first module that handed on bf16: a weight in fp16 does not say what is computed in.
    """
    import torch

    found: list[str] = []

    def look(name: str, output: Any) -> None:
        for value in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
                found.append(name)

    watched = model.named_modules() if precision == "fp16" else ()
    hooks = [module.register_forward_hook(lambda _m, _i, out, name=name: look(name, out)) for name, module in watched]

    def end() -> None:
        for hook in hooks:
            hook.remove()
        if found:
            raise UserError(f"{found[0]} computes in bf16 in an fp16 run; install the versions in constraints.txt")

    return end


def check_precision(model: Any, precision: str) -> None:
    """No weight in bf16 where the hardware is taken to lack it.  Raises UserError naming the first."""
    import torch

    if precision != "fp16":
        return
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype == torch.bfloat16:
            raise UserError(f"{name} is bf16 in an fp16 run: this base was loaded in another precision; set precision")


def check_weights(weights: Mapping[str, Any]) -> None:
    """Every trained tensor is finite: no loss was taken after the last step.  Raises UserError naming the first that is not."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{name} is not finite after the last step; lower learning_rate or use precision=fp32, and run without "
                "--resume"
            )
