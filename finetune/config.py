"""A preset's TOML + `--set key=value` -> Settings: the one list of training settings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbing.errors import UserError, faults_error
from plumbing.toml_file import fill, read_toml, shipped_path

PRESETS = Path(__file__).parent / "presets"
ENGINES = ("auto", "unsloth", "peft")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
PARALLEL = ("ddp", "fsdp")
SCHEDULES = (  # transformers' schedules that need no settings of their own
    "cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "inverse_sqrt", "polynomial",
)  # fmt: skip
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # a block's linear layers
RANGES: dict[str, tuple[float, float]] = {  # setting -> its smallest and largest value
    "max_length": (1, 2**20), "lora_r": (1, 4096), "lora_alpha": (1, 2**20), "lora_dropout": (0, 0.99),
    "epochs": (0, 10_000), "max_steps": (-1, 10**8), "batch": (1, 4096), "accumulation": (1, 4096),
    "learning_rate": (0, 1), "warmup": (0, 1), "weight_decay": (0, 1), "gpu_memory": (0, 10_000),
    "invented_share": (0, 1), "save_steps": (1, 10**8), "seed": (0, 2**32 - 1),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    base: str  # a shipped base's name or a base TOML
    base_folder: str = ""  # a local copy of the base's weights; "" for the base's own repo
    engine: str = "auto"  # unsloth where CUDA is, peft elsewhere
    load_in_4bit: bool = False  # the base in NF4 (CUDA only)
    parallel: str = "ddp"  # under torchrun: the whole base on each GPU; "fsdp": 16-bit weights sharded over the GPUs
    precision: str = "auto"  # of the arithmetic: bf16 where the hardware has it, fp16 on older GPUs, fp32 on CPUs
    max_length: int = 2048  # tokens; a longer row is an error and is not cut
    lora_r: int = 32
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: list[str] = field(default_factory=lambda: list(MODULES))
    epochs: float = 1.0
    max_steps: int = -1  # optimizer steps; a value above 0 replaces epochs
    batch: int = 2  # rows of a micro-batch
    accumulation: int = 4  # micro-batches of an optimizer step; times `batch`, the effective batch of all processes
    learning_rate: float = 3e-4
    schedule: str = "cosine"
    warmup: float = 0.05  # as a share of the steps
    weight_decay: float = 0.0
    checkpointing: bool = True  # recompute activations: less memory, more time
    cuda_graphs: bool = True  # Unsloth: launch a step's kernels all at once, when the plan allows it
    plan: bool = True  # on CUDA: divide the effective batch and choose checkpointing and 16 or 4 bits by free memory
    gpu_memory: float = 0.0  # GiB of a GPU that training may take; 0: all that is free
    invented_share: float = 0.0  # of extra rows whose concept has an invented name: they teach to copy it
    save_steps: int = 200  # optimizer steps between checkpoints
    seed: int = 0


def load_settings(preset: str, overrides: list[str]) -> Settings:
    """A shipped preset's name or a TOML's path, with `key=value` overrides parsed as TOML.  Raises UserError."""
    path = shipped_path(PRESETS, preset, "preset")
    where = f"{path} with --set" if overrides else str(path)
    settings = fill(Settings, read_toml(path) | parse_overrides(overrides), where)
    faults = _faults(settings)
    if faults:
        raise faults_error(where, faults)
    return settings


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """`key=value` texts as a table.  A bare word is a string.

    >>> parse_overrides(["epochs=3", "engine=peft"])
    {'epochs': 3, 'engine': 'peft'}
    """
    table: dict[str, Any] = {}
    for text in overrides:
        key, found, value = text.partition("=")
        if not found or not key.strip():
            raise UserError(f"--set {text}: expected key=value")
        try:
            (table[key.strip()],) = tomllib.loads(f"value = {value}").values()
        except (ValueError, RecursionError):  # or a number of 5,000 digits, or brackets nested as deep
            table[key.strip()] = value.strip()
    return table


def _faults(settings: Settings) -> list[str]:
    options = {"engine": ENGINES, "precision": PRECISIONS, "parallel": PARALLEL, "schedule": SCHEDULES}
    faults = [
        f"'{key}' is '{getattr(settings, key)}', expected one of {', '.join(known)}"
        for key, known in options.items()
        if getattr(settings, key) not in known
    ]
    if settings.parallel == "fsdp" and settings.load_in_4bit:
        faults.append("'parallel' is 'fsdp', which shards a 16-bit base: set load_in_4bit=false, or parallel=ddp")
    if settings.parallel == "fsdp" and settings.engine == "unsloth":
        faults.append("'parallel' is 'fsdp', which trains by peft: set engine=peft, or parallel=ddp")
    for key, (least, most) in RANGES.items():
        if not least <= getattr(settings, key) <= most:  # NaN is in no range
            faults.append(f"'{key}' is {getattr(settings, key)}, expected {least} to {most}")
    if settings.learning_rate == 0:
        faults.append("'learning_rate' is 0, expected more")
    if settings.epochs == 0 and settings.max_steps < 1:
        faults.append("'epochs' and 'max_steps' leave no step to train")
    if not settings.target_modules or set(settings.target_modules) - set(MODULES):
        faults.append(f"'target_modules' is {settings.target_modules}, expected some of {', '.join(MODULES)}")
    return faults
