"""A base's tensors + a LoRA adapter -> merged tensors, one at a time: summed in float32, rounded as the base is.

The same sums and roundings as PEFT's merge_and_unload, without its copy of the whole model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.errors import UserError, faults_error
from quantize.tensors import Tensor, open_file

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."  # what PEFT puts before the base's own module names

# Features of PEFT that change more than W + scale * B @ A; each would be lost in silence, so each is refused by name.
UNMERGEABLE = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens", "kasa_config", "monteclora_config",
    "arrow_config", "velora_config",
)  # fmt: skip
EMBEDDINGS = {"model.embed_tokens.weight": "output matrix", "lm_head.weight": "embedding"}
OTHER_BASE = "the adapter belongs to another base"
INITS = (True, False, "gaussian", "orthogonal", "eva")  # of LoRA weights; any other also rewrites the base's weights


@dataclass(frozen=True)
class Lora:
    """What is added to one tensor: scale * B @ A."""

    a: Tensor
    b: Tensor
    scale: float


@dataclass(frozen=True)
class Saved(Tensor):
    """A tensor of a module that was trained whole: it takes the base's place, as the base stores it."""

    stored: str  # the base's dtype

    def read(self) -> np.ndarray:
        return round_to(super().read(), self.stored)


def open_adapter(folder: Path, base: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Lora]]:
    """The base's tensors, those that the adapter replaces replaced, and tensor's name -> its LoRA.

    Raises UserError for what cannot be merged, or belongs to another base.
    """
    config = _read_config(folder / ADAPTER_CONFIG)
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in open_file(folder / ADAPTER_WEIGHTS).items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", name)
        if match:
            pairs.setdefault(match[1], {})[match[2]] = tensor
        else:
            whole[name.removeprefix(PREFIX)] = tensor
    faults = _misfits(whole, base, config)
    loras = {}
    for module, pair in pairs.items():
        fault = _misfit(module, pair, base, config)
        if fault:
            faults.append(fault)
        else:
            loras[f"{module}.weight"] = Lora(pair["A"], pair["B"], _scale(config, module))
    if faults or not loras:
        shown = faults[:3] or ["holds no LoRA weights"]
        cure = (
            "name its own base with --base DIR"
            if any(OTHER_BASE in fault for fault in shown)
            else "train it again without that"
        )
        raise faults_error(str(folder / ADAPTER_WEIGHTS), [*shown[:-1], f"{shown[-1]}; {cure}"])
    saved = {name: Saved(**vars(whole[name]), stored=base[name].dtype) for name in whole.keys() & base.keys()}
    return {**base, **saved}, loras


def merge(tensor: Tensor, lora: Lora | None) -> np.ndarray:
    """The tensor in float32, its LoRA added and the sum rounded to the type that the base is stored in."""
    weight = tensor.read()
    if lora is None:
        return weight
    delta = lora.b.read() @ lora.a.read()
    delta *= np.float32(lora.scale)
    weight += delta
    return round_to(weight, tensor.dtype)


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 -> the nearest value of `dtype` (ties to even), still held in float32."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        with np.errstate(over="ignore"):  # infinity is refused by the quantiser, with the tensor's name
            return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)
    bits &= 0xFFFF0000
    return values


def _misfits(whole: Mapping[str, Tensor], base: Mapping[str, Tensor], config: Mapping[str, Any]) -> list[str]:
    """What keeps the modules that were trained whole from taking the base's place."""
    asked, tied = tuple(config.get("modules_to_save") or ()), EMBEDDINGS.keys() - base.keys()
    faults = []
    for name, tensor in whole.items():
        if name in tied and config.get("ensure_weight_tying"):
            continue  # the embedding once more
        if not _inside(name, asked):
            faults.append(f"{name} is no lora_A or lora_B of a linear layer and cannot be merged")
        elif name in EMBEDDINGS and tied and not config.get("ensure_weight_tying"):
            faults.append(f"{name} was trained alone, the base ties it to its {EMBEDDINGS[name]}")
        elif name not in base:
            faults.append(f"{name} is no tensor of the base: {OTHER_BASE}")
        elif tensor.shape != base[name].shape:
            sizes = (" x ".join(map(str, t.shape)) for t in (tensor, base[name]))
            faults.append(f"{name} is {next(sizes)}, the base's is {next(sizes)}: {OTHER_BASE}")
    absent = [name for name in base if _inside(name, asked) and name not in whole]
    return faults + [f"modules_to_save names {name}, which the adapter lacks" for name in absent]


def _inside(name: str, modules: tuple[str, ...]) -> bool:
    """Is the tensor of one of the modules, or of one inside it?  PEFT compares the ends of the names."""
    parts = name.split(".")
    return any(".".join(parts[:n]).endswith(modules) for n in range(1, len(parts)))


def _misfit(
    module: str, pair: Mapping[str, Tensor], base: Mapping[str, Tensor], config: Mapping[str, Any]
) -> str | None:
    if pair.keys() != {"A", "B"}:
        return f"{module} lacks lora_{'B' if 'A' in pair else 'A'}"
    target = base.get(f"{module}.weight")
    if target is None:
        return f"{module} is no module of the base: {OTHER_BASE}"
    a, b, rank = pair["A"].shape, pair["B"].shape, _pattern(config, "rank_pattern", "r", module)
    if a[0] != rank:
        return f"{module} has rank {a[0]}, {ADAPTER_CONFIG} says {rank}"
    if (b[0], a[1]) != target.shape or b[1] != a[0]:
        return f"{module} is {b[0]} x {a[1]}, the base's is {' x '.join(map(str, target.shape))}: {OTHER_BASE}"
    return None


def _scale(config: Mapping[str, Any], module: str) -> float:
    """alpha / r, or alpha / sqrt(r) with rslora (https://arxiv.org/abs/2312.03732)."""
    rank, alpha = _pattern(config, "rank_pattern", "r", module), _pattern(config, "alpha_pattern", "lora_alpha", module)
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _pattern(config: Mapping[str, Any], patterns: str, default: str, module: str) -> Any:
    """The value for one module: the first pattern that matches the end of its name, else the adapter's own."""
    for key, value in (config.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return config[default]


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        faults = [f"{key} is set, which a plain merge would lose" for key in UNMERGEABLE if config.get(key)]
        if config.get("bias", "none") != "none":
            faults.append(f"bias is {config['bias']!r}, which a plain merge would lose")
        if config.get("init_lora_weights", True) not in INITS:
            faults.append(f"init_lora_weights is {config['init_lora_weights']!r}, which changes the base's weights too")
        if config["peft_type"] != "LORA":
            faults.append(f"peft_type is {config['peft_type']!r}, wanted LORA")
        if not (config["r"] > 0 and config["lora_alpha"] > 0):
            faults.append("r and lora_alpha must be above 0")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: not a finished adapter; train it again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a PEFT adapter's config ({error}); train the adapter again") from None
    if faults:
        raise faults_error(str(path), [*faults[:-1], f"{faults[-1]}; train without it"])
    return config
