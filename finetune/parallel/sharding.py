"""`parallel = "fsdp"`: FSDP2 shards the base's weights over the processes; the adapter is gathered.

Each of n processes holds 1/n of every weight.  A decoder layer's weights are gathered while it computes.  transformers
and accelerate do the work.  DDP, the default, needs none of this.
"""

from __future__ import annotations

from typing import Any

from finetune.config import Settings
from finetune.parallel.processes import world_size
from finetune.rows import Row
from plumbing.errors import UserError


def check_launched(settings: Settings, preset: str) -> None:
    """Raises UserError when there is only one process."""
    if settings.parallel == "fsdp" and world_size() == 1:
        raise UserError(
            "parallel = 'fsdp' shards the weights over several processes and this is one; start them by "
            f"`torchrun --nproc_per_node 2 -m finetune {preset} ...`, or set parallel=ddp"
        )


def fsdp_arguments(settings: Settings) -> dict[str, Any]:
    """The arguments of TrainingArguments for FSDP2; empty for DDP, which the launcher alone turns on.

    The model's own `_no_split_modules` says what a layer is.  Checkpointing stays TrainingArguments' own: FSDP's does not
    keep the random state, so a dropout would be drawn again in the backward pass.  Every micro-batch's gradients are
    summed over the processes immediately.  A LoRA's are small, and torch (2.11 on two GPUs; 2.13 has the same lines) fails
    to delay the sum for a module that was never gathered.  TRL's chunked loss does not gather the output matrix.
    """
    if settings.parallel != "fsdp":
        return {}
    config = {"version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True}
    config |= {"state_dict_type": "SHARDED_STATE_DICT"}  # each process writes its own shard of a checkpoint
    immediate = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}
    return {"fsdp": True, "fsdp_config": config, "accelerator_config": immediate}


def sample_alike(trainer: Any, rows: list[Row], settings: Settings) -> None:
    """Group rows of similar length by the effective batch of all processes, so each step has the same rows as with one.

    The trainer's own sampler groups by one process's batch, so the order would depend on the number of processes.
    """
    from transformers.trainer_pt_utils import LengthGroupedSampler

    effective = settings.batch * settings.accumulation * world_size()
    lengths = [len(row["input_ids"]) for row in rows]
    trainer._get_train_sampler = lambda _dataset=None: LengthGroupedSampler(effective, lengths=lengths)


def make_policy(precision: str) -> Any:
    """Which types FSDP2 casts to (DDP uses autocast): gathered weights to `precision`, the gradients' sum to fp32.

    The loss is not cast.  accelerate's own policy would use 16 bits for all three.
    """
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[precision]
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)


def shard(trainer: Any, settings: Settings, precision: str) -> None:
    """Make `trainer.train` shard the model.  On CPUs accelerate would silently skip FSDP, although it works there."""
    if settings.parallel != "fsdp":
        return
    from accelerate import DistributedType
    from accelerate.utils import FullyShardedDataParallelPlugin

    state = trainer.accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.FSDP
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**trainer.args.fsdp_plugin_args)
        trainer.is_fsdp_enabled = True
    state.fsdp_plugin.mixed_precision_policy = make_policy(precision)


def whole_weights(model: Any, settings: Settings) -> dict[str, Any] | None:
    """The trained tensors, gathered on rank 0's CPU; every process must call this.  None when nothing is sharded."""
    if settings.parallel != "fsdp":
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return dict(get_model_state_dict(model, options=options))
