"""GPU, base, rows -> how to train: batch, accumulation, checkpointing, 4-bit or 16-bit base.

The effective batch and the number of optimizer steps stay as in the preset.  There are several ways to divide an optimizer
step; the cheapest one that fits into memory is chosen.  A setting that the user gives with --set is not changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from finetune.config import Settings
from finetune.cuda_graphs import graph_lengths
from finetune.memory import GIB, lora_parameters, predicted_peak
from finetune.parallel.processes import gather, local_rank
from models.shape import Shape
from plumbing.errors import UserError

HEADROOM = 0.92  # of the free memory; the rest is for the allocator's slack and the prediction's error
LAUNCH_TOKENS = 1024  # a smaller micro-batch takes as long as this many tokens: the GPU waits for the CPU's launches
RECOMPUTING = 1.5  # times the work: the forward pass is done twice, the backward pass once
UNPACKING = 1.1  # times the work: a 4-bit base is unpacked each time it is used
PADDING = 1.1  # times the work: rows padded to a graph's length
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes a value


@dataclass(frozen=True)
class Gpu:
    """What a plan depends on."""

    name: str
    free: float  # GiB


@dataclass(frozen=True)
class TrainingPlan:
    """One way to divide the preset's optimizer step."""

    batch: int  # rows a device and micro-batch
    accumulation: int  # micro-batches a device and optimizer step
    checkpointing: bool
    load_in_4bit: bool
    cuda_graphs: bool
    peak: float  # GiB, predicted
    cost: float  # relative time of an optimizer step

    def apply(self, settings: Settings) -> Settings:
        keys = ("batch", "accumulation", "checkpointing", "load_in_4bit", "cuda_graphs")
        return dataclasses.replace(settings, **{key: getattr(self, key) for key in keys})

    def __str__(self) -> str:
        base = "4-bit" if self.load_in_4bit else "16-bit"
        checkpointing = "checkpointing" if self.checkpointing else "no checkpointing"
        graphs = ", CUDA graphs" if self.cuda_graphs else ""
        rows = f"batch {self.batch} x {self.accumulation}"
        return f"{base} base, {rows}, {checkpointing}{graphs}: {self.peak:.1f} GiB at the peak"


def read_gpu(limit: float) -> Gpu:
    """This process's CUDA device.  Its free memory is the least of all processes', so that all make the same plan.

    A `limit` above 0, in GiB, also keeps torch from taking more.
    """
    import torch

    device = local_rank()
    torch.cuda.set_device(device)
    free, whole = torch.cuda.mem_get_info(device)
    if limit:
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * GIB / whole), device)
    return Gpu(torch.cuda.get_device_name(device), min(gather(min(free / GIB, limit or free / GIB))))


def make_plans(
    settings: Settings, pinned: Collection[str], shape: Shape, lengths: Sequence[int], gpu: Gpu, engine: str,
    precision: str = "bf16", devices: int = 1,
) -> list[TrainingPlan]:  # fmt: skip
    """The plans that fit: the best first, then plans to fall back on, each with less memory than the one before.

    `lengths` are the rows' lengths in tokens, `pinned` the settings that must not be changed.  Raises UserError when the
    effective batch cannot be split, or nothing fits.
    """
    own = share_of_one(settings, devices)
    rows = own.batch * own.accumulation
    free: dict[str, list] = {  # what a plan may choose
        "batch": [batch for batch in range(1, rows + 1) if rows % batch == 0],
        "checkpointing": [False, True],
        "load_in_4bit": [False, True] if settings.load_in_4bit else [False],
    }
    choices = [[getattr(own, key)] if key in pinned else values for key, values in free.items()]
    ways = [
        _plan(settings, shape, lengths, engine, precision, devices, (batch, rows // batch, checkpointing, four_bit))
        for batch, checkpointing, four_bit in itertools.product(*choices)
        if "accumulation" not in pinned or batch * own.accumulation == rows
    ]
    fitting = sorted((way for way in ways if way.peak <= gpu.free * HEADROOM), key=lambda way: (way.cost, way.peak))
    if not fitting:
        least = min(ways, key=lambda way: way.peak)
        raise UserError(
            f"{gpu.name}: {gpu.free:.1f} GiB are free, the smallest plan needs {least.peak / HEADROOM:.1f} ({least}); "
            "free some, or lower max_length or lora_r"
        )
    plans = fitting[:1]
    for way in fitting[1:]:
        if way.peak < min(0.9 * plans[0].peak, plans[-1].peak):
            plans.append(way)
    return plans


def share_of_one(settings: Settings, devices: int) -> Settings:
    """The settings for one of several processes.  Raises UserError when they cannot keep the effective batch."""
    rows, rest = divmod(settings.batch * settings.accumulation, devices)
    if rest:
        raise UserError(
            f"the effective batch of {rows * devices + rest} rows cannot be split over {devices} processes; set another batch"
        )
    batch = math.gcd(settings.batch, rows)
    return dataclasses.replace(settings, batch=batch, accumulation=rows // batch)


def reason(plan: TrainingPlan, settings: Settings, pinned: Collection[str], gpu: Gpu) -> str:
    """Why this plan, in one line."""
    why = [f"of {gpu.free:.1f} GiB free on {gpu.name}"]
    if settings.load_in_4bit and not plan.load_in_4bit:
        why.append("a 16-bit base fits and is not unpacked at every step")
    if settings.checkpointing and not plan.checkpointing:
        why.append("activations fit and are not computed twice")
    if plan.accumulation > 1 and not {"batch", "accumulation"} & set(pinned):
        why.append("a larger batch would not fit or not be faster")
    return f"{why[0]}; {', '.join(why[1:])}" if why[1:] else why[0]


def _plan(
    settings: Settings, shape: Shape, lengths: Sequence[int], engine: str, precision: str, devices: int,
    way: tuple[int, int, bool, bool],
) -> TrainingPlan:  # fmt: skip
    """The plan for one way to divide the step, with its memory and time; `way` holds the plan's first fields."""
    batch, accumulation, checkpointing, four_bit = way
    lora = lora_parameters(shape, settings.lora_r, settings.target_modules)
    longest = sorted(lengths, reverse=True)[:batch]
    tokens = sum(longest) if engine == "unsloth" else batch * longest[0]  # peft pads, Unsloth joins rows end to end
    can_graph = settings.cuda_graphs and engine == "unsloth" and devices == accumulation == 1 and not checkpointing
    graphs = graph_lengths(lengths, batch) if can_graph else set()
    if graphs:
        tokens = batch * max(*graphs, longest[0])
    shards = devices if settings.parallel == "fsdp" else 1
    width = WIDTH[precision]
    peak = predicted_peak(shape, engine, lora, four_bit, checkpointing, tokens, width, shards, len(graphs) or 1)
    mean = sum(lengths) / len(lengths)
    work = (RECOMPUTING if checkpointing else 1) * (UNPACKING if four_bit else 1) * (PADDING if graphs else 1)
    cost = accumulation * (batch * mean * work + (0 if graphs else LAUNCH_TOKENS))
    return TrainingPlan(*way, bool(graphs), peak, cost)
