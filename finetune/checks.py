"""Checks of the batch and model before the first step, and of the weights after the last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finetune.rows import Row
from plumbing.errors import UserError

ROWS = 4  # in the batch that is checked


def check_batch(trainer: Any, rows: Sequence[Row], stop: int) -> None:
    """The labels of `trainer`'s own batch must be exactly the responses' tokens, and each response must end in `stop`.

    Raises UserError: with a wrong mask the model would learn the question too, or never learn to stop.
    """
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(min(ROWS, len(rows)))])
    labels = [label for label in batch["labels"].flatten().tolist() if label != -100]
    expected: list[int] = []
    for row in rows[:ROWS]:
        completion = [token for token, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if kept]
        if not completion or completion[-1] != stop:
            raise UserError(
                f"a response ends in token {completion[-1:]}, not in the stop ({stop}): correct the base's TOML"
            )
        expected += completion
    if labels != expected:
        raise UserError(
            f"the batch trains {len(labels)} tokens, the responses have {len(expected)}: this version of trl or unsloth "
            "masks differently; install the versions in constraints.txt"
        )


def watch_activations(model: Any, precision: str) -> Callable[[], None]:
    """In an fp16 run, watch the outputs of all modules.  The returned function ends the watch.

    It raises UserError naming the first module with an output in bf16: a module with fp16 weights may still compute in bf16.
    """
    import torch

    found: list[str] = []

    def check(name: str, output: Any) -> None:
        for value in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
                found.append(name)

    watched = model.named_modules() if precision == "fp16" else ()
    hooks = [module.register_forward_hook(lambda _m, _i, out, name=name: check(name, out)) for name, module in watched]

    def end() -> None:
        for hook in hooks:
            hook.remove()
        if found:
            raise UserError(f"{found[0]} computes in bf16 in an fp16 run; install the versions in constraints.txt")

    return end


def check_precision(model: Any, precision: str) -> None:
    """Raises UserError naming the first weight in bf16 in an fp16 run, for which the hardware lacks bf16."""
    import torch

    if precision != "fp16":
        return
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype == torch.bfloat16:
            raise UserError(f"{name} is bf16 in an fp16 run: the base was loaded in another precision; set precision")


def check_weights(weights: Mapping[str, Any]) -> None:
    """Raises UserError naming the first trained tensor that is not finite.  No loss was computed after the last step."""
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{name} is not finite after the last step; lower learning_rate or use precision=fp32, and run without "
                "--resume"
            )
