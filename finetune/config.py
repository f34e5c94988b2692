"""A preset's TOML + `--set key=value` -> Settings: the one list of training settings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import UserError, faults_error
from contract.toml_file import fill, read_toml

PRESETS = Path(__file__).parent / "presets"
ENGINES = ("auto", "unsloth", "peft")
PRECISIONS = ("auto", "bf16", "fp16", "fp32")
PARALLEL = ("ddp", "fsdp")


@dataclass(frozen=True)
class Settings:
    base: str  # a shipped base's name or a base TOML
    base_folder: str = ""  # a local copy of the base's weights; "" for the base's own repo
    engine: str = "auto"  # unsloth where CUDA is, peft elsewhere
    load_in_4bit: bool = False  # the base in NF4 (CUDA only)
    parallel: str = "ddp"  # under torchrun: a whole base on each GPU, or "fsdp": its 16-bit weights sharded over them
    precision: str = "auto"  # of the arithmetic: bf16 where the hardware has it, fp16 on older GPUs, fp32 on CPUs
    max_length: int = 2048  # tokens; a longer row is an error, never cut
    lora_r: int = 32
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] | list[str] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    epochs: float = 1.0
    max_steps: int = -1  # optimizer steps; above 0 it wins over epochs
    batch: int = 2  # rows a device and step
    accumulation: int = 4  # steps gathered into one optimizer step
    learning_rate: float = 3e-4
    schedule: str = "cosine"
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.0
    checkpointing: bool = True  # recompute activations: less memory, more time
    cuda_graphs: bool = True  # Unsloth: replay a step's kernels by one launch, where the plan leaves steps that can be
    plan: bool = True  # on CUDA: cut the effective batch, and choose checkpointing and 16 or 4 bits, as memory allows
    gpu_memory: float = 0.0  # GiB of a GPU that training may take; 0 for what is free
    invented_share: float = 0.0  # extra rows, as a share, whose concept bears an invented name: only copying can answer
    save_steps: int = 200  # optimizer steps between checkpoints
    seed: int = 0


def load_settings(preset: str, overrides: list[str]) -> Settings:
    """A shipped preset's name or a TOML's path, with `key=value` overrides parsed as TOML.  Raises UserError."""
    path = Path(preset) if preset.endswith(".toml") else PRESETS / f"{preset}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise UserError(f"{preset}: no such preset (shipped: {shipped}; or a path that ends in .toml)")
    settings = fill(Settings, read_toml(path) | parse_overrides(overrides), str(path))
    faults = _faults(settings)
    if faults:
        raise faults_error(str(path), faults)
    return settings


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """`key=value` texts as a table; a bare word counts as text.

    >>> parse_overrides(["epochs=3", "engine=peft"])
    {'epochs': 3, 'engine': 'peft'}
    """
    table: dict[str, Any] = {}
    for text in overrides:
        key, found, value = text.partition("=")
        if not found or not key.strip():
            raise UserError(f"--set {text}: wanted key=value")
        try:
            table[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            table[key.strip()] = value.strip()
    return table


def _faults(settings: Settings) -> list[str]:
    faults = []
    for key, options in (("engine", ENGINES), ("precision", PRECISIONS), ("parallel", PARALLEL)):
        if getattr(settings, key) not in options:
            faults.append(f"'{key}' is '{getattr(settings, key)}', wanted one of {', '.join(options)}")
    faults += _fsdp_faults(settings)
    for key in ("max_length", "lora_r", "lora_alpha", "batch", "accumulation", "save_steps"):
        if getattr(settings, key) < 1:
            faults.append(f"'{key}' is {getattr(settings, key)}, wanted 1 or more")
    if settings.gpu_memory < 0:
        faults.append(f"'gpu_memory' is {settings.gpu_memory}, wanted 0 or more GiB")
    if settings.learning_rate <= 0:
        faults.append(f"'learning_rate' is {settings.learning_rate}, wanted more than 0")
    if settings.epochs <= 0 and settings.max_steps < 1:
        faults.append("'epochs' and 'max_steps' leave no step to train")
    for key, high in (("lora_dropout", 0.99), ("warmup", 1.0), ("invented_share", 1.0)):
        if not 0 <= getattr(settings, key) <= high:
            faults.append(f"'{key}' is {getattr(settings, key)}, wanted 0 to {high}")
    return faults


def _fsdp_faults(settings: Settings) -> list[str]:
    """What FSDP2 cannot be combined with."""
    if settings.parallel != "fsdp":
        return []
    faults = []
    if settings.load_in_4bit:
        faults.append("'parallel' is 'fsdp', which shards a 16-bit base: set load_in_4bit=false, or parallel=ddp")
    if settings.engine == "unsloth":
        faults.append("'parallel' is 'fsdp', which trains by peft: set engine=peft, or parallel=ddp")
    return faults
