"""GPU, base, rows -> how to train: batch, accumulation, checkpointing, 4-bit or 16-bit base.  The mathematics stay the preset's.

The effective batch and the number of optimizer steps are what the preset says; of all ways to cut a step that fit into
the memory, the cheapest is taken.  What a user sets with --set stays as set.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from finetune.config import Settings
from finetune.cuda_graphs import graph_lengths
from finetune.memory import GIB, Shape, predicted_peak
from finetune.parallel.processes import gather, local_rank
from plumbing.errors import UserError

HEADROOM = 0.92  # of the free memory: the allocator's slack, and what a prediction may err
LAUNCH_TOKENS = (
    1024  # below about so many tokens a micro-batch takes as long as this: the GPU waits for the CPU's launches
)
RECOMPUTING = 1.5  # times the work: the forward pass is done twice, the backward pass once
UNPACKING = 1.1  # times the work: a 4-bit base is unpacked at every use
PADDING = 1.1  # times the work: rows padded to a graph's length
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes a value


@dataclass(frozen=True)
class Gpu:
    """What a plan must know of the device."""

    name: str
    free: float  # GiB


@dataclass(frozen=True)
class Plan:
    """One way to cut the preset's optimizer step."""

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
        cut = f"batch {self.batch} x {self.accumulation}"
        return f"{base} base, {cut}, {checkpointing}{graphs}: {self.peak:.1f} GiB at the peak"


def read_gpu(limit: float) -> Gpu:
    """This process's CUDA device, with the least free memory of all processes' so that they plan the same.

    `limit`, in GiB and above 0, also keeps torch from taking more.
    """
    import torch

    device = local_rank()
    torch.cuda.set_device(device)
    free, whole = torch.cuda.mem_get_info(device)
    if limit:
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit * GIB / whole), device)
    return Gpu(torch.cuda.get_device_name(device), min(gather(min(free / GIB, limit or free / GIB))))


def make_plans(
    settings: Settings,
    pinned: Collection[str],
    shape: Shape,
    lengths: Sequence[int],
    gpu: Gpu,
    engine: str,
    precision: str = "bf16",
    devices: int = 1,
) -> list[Plan]:
    """The plans that fit, the best first, then each that needs less than the one before: what to fall back on.

    `lengths` are the rows' in tokens, `pinned` the settings that are not to be changed.  Raises UserError when the
    effective batch cannot be split, or nothing fits.
    """
    mine = shared(settings, devices)
    rows = mine.batch * mine.accumulation
    ways = [
        _plan(settings, shape, lengths, engine, precision, devices, (batch, rows // batch, checkpointing, four_bit))
        for batch in _choices(mine, "batch", pinned, [batch for batch in range(1, rows + 1) if rows % batch == 0])
        for checkpointing in _choices(mine, "checkpointing", pinned, [False, True])
        for four_bit in _choices(mine, "load_in_4bit", pinned, [False, True] if settings.load_in_4bit else [False])
        if "accumulation" not in pinned or batch * mine.accumulation == rows
    ]
    fitting = sorted((way for way in ways if way.peak <= gpu.free * HEADROOM), key=lambda way: (way.cost, way.peak))
    if not fitting:
        least = min(ways, key=lambda way: way.peak)
        raise UserError(
            f"{gpu.name}: {gpu.free:.1f} GiB are free, the smallest plan needs {least.peak / HEADROOM:.1f} ({least}); "
            "free some, or lower max_length or lora_r"
        )
    plans = fitting[:1]
    plans += [way for way in fitting[1:] if way.peak < 0.9 * plans[0].peak]
    return [way for i, way in enumerate(plans) if i == 0 or way.peak < min(p.peak for p in plans[:i])]


def shared(settings: Settings, devices: int) -> Settings:
    """The settings of one of many processes: the effective batch stays the preset's.  Raises UserError if it cannot."""
    rows, rest = divmod(settings.batch * settings.accumulation, devices)
    if rest:
        raise UserError(
            f"the effective batch of {rows * devices + rest} rows cannot be split over {devices} processes; set another batch"
        )
    batch = math.gcd(settings.batch, rows)
    return dataclasses.replace(settings, batch=batch, accumulation=rows // batch)


def reason(plan: Plan, settings: Settings, pinned: Collection[str], gpu: Gpu) -> str:
    """Why this plan, in one line."""
    why = [f"of {gpu.free:.1f} GiB free on {gpu.name}"]
    if settings.load_in_4bit and not plan.load_in_4bit:
        why.append("a 16-bit base fits and is not unpacked at every step")
    if settings.checkpointing and not plan.checkpointing:
        why.append("activations fit and are not computed twice")
    if plan.accumulation > 1 and not {"batch", "accumulation"} & set(pinned):
        why.append("a larger batch would not fit or not be faster")
    return f"{why[0]}; {', '.join(why[1:])}" if why[1:] else why[0]


def _choices(settings: Settings, key: str, pinned: Collection[str], others: list) -> list:
    return [getattr(settings, key)] if key in pinned else others


def _plan(
    settings: Settings, shape: Shape, lengths: Sequence[int], engine: str, precision: str, devices: int,
    cut: tuple[int, int, bool, bool],
) -> Plan:  # fmt: skip
    """What one way to cut the step costs of memory and time; `cut` is the plan's first fields."""
    batch, accumulation, checkpointing, four_bit = cut
    lora = shape.lora_parameters(settings.lora_r, settings.target_modules)
    longest = sorted(lengths, reverse=True)[:batch]
    tokens = sum(longest) if engine == "unsloth" else batch * longest[0]  # peft pads, Unsloth lays rows end to end
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
    return Plan(*cut, bool(graphs), peak, cost)
