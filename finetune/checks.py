"""What must hold of the real batch and the real model before the first step; each fault is told and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contract.errors import UserError
from finetune.rows import Row

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


def check_precision(model: Any, precision: str) -> None:
    """No weight in bf16 where the hardware is taken to lack it.  Raises UserError naming the first."""
    import torch

    if precision != "fp16":
        return
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.dtype == torch.bfloat16:
            raise UserError(f"{name} is bf16 in an fp16 run: this base was loaded in another precision; set precision")
