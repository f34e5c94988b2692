"""A base's tensors + a LoRA adapter -> merged tensors, one at a time: summed in float32, rounded as the base is.

The same sums and roundings as PEFT's merge_and_unload, without its copy of the whole model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.tensors import Tensor, open_file, round_to
from plumbing.errors import UserError
from quantize.adapter_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterConfig, read_adapter_config

PREFIX = "base_model.model."  # what PEFT puts before the base's own module names

EMBEDDINGS = {"model.embed_tokens.weight": "output matrix", "lm_head.weight": "embedding"}
OTHER_BASE, LACKS = "the adapter belongs to another base", "which the adapter lacks"


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
    config = read_adapter_config(folder / ADAPTER_CONFIG)
    pairs, whole = _sort(open_file(folder / ADAPTER_WEIGHTS))
    misfits = {module: _misfit(module, pair, base, config) for module, pair in pairs.items()}
    faults = _misfits(whole, base, config) + [fault for fault in misfits.values() if fault]
    faults = faults or _absent(whole, pairs, base, config)
    if faults or not pairs:
        raise _refusal(folder / ADAPTER_WEIGHTS, faults or ["holds no LoRA weights"])
    saved = {name: Saved(**vars(whole[name]), stored=base[name].dtype) for name in whole.keys() & base.keys()}
    loras = {f"{module}.weight": Lora(pair["A"], pair["B"], config.scale(module)) for module, pair in pairs.items()}
    return {**base, **saved}, loras


def _sort(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Module -> its LoRA's A and B; name -> each other tensor, which is to take the base's place."""
    pairs: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", name)
        if match:
            pairs.setdefault(match[1], {})[match[2]] = tensor
        else:
            whole[name.removeprefix(PREFIX)] = tensor
    for module in pairs:  # PEFT stores the base's own weights beside an output matrix's LoRA
        whole.pop(f"{module}.base_layer.weight", None)
    return pairs, whole


def merge(tensor: Tensor, lora: Lora | None) -> np.ndarray:
    """The tensor in float32, its LoRA added and the sum rounded to the type that the base is stored in."""
    weight = tensor.read()
    if lora is None:
        return weight
    with np.errstate(invalid="ignore", over="ignore"):  # the quantiser refuses it, with the tensor's name
        delta = lora.b.read() @ lora.a.read()
        delta *= np.float32(lora.scale)
        weight += delta
    return round_to(weight, tensor.dtype)


def _misfits(whole: Mapping[str, Tensor], base: Mapping[str, Tensor], config: AdapterConfig) -> list[str]:
    """What keeps the modules that were trained whole from taking the base's place."""
    asked, tied = tuple(config.modules_to_save), EMBEDDINGS.keys() - base.keys()
    faults = []
    for name, tensor in whole.items():
        if name in tied and config.ensure_weight_tying:
            continue  # the embedding once more
        if not _inside(name, asked):
            faults.append(f"{name} is no lora_A or lora_B of a linear layer and cannot be merged")
        elif name in EMBEDDINGS and tied and not config.ensure_weight_tying:
            faults.append(f"{name} was trained alone, the base ties it to its {EMBEDDINGS[name]}")
        elif name not in base:
            faults.append(f"{name} is no tensor of the base: {OTHER_BASE}")
        elif tensor.shape != base[name].shape:
            sizes = (" x ".join(map(str, t.shape)) for t in (tensor, base[name]))
            faults.append(f"{name} is {next(sizes)}, the base's is {next(sizes)}: {OTHER_BASE}")
    return faults


def _absent(
    whole: Collection[str], pairs: Collection[str], base: Mapping[str, Tensor], config: AdapterConfig
) -> list[str]:
    """What the config promises and the file does not hold: a training that was saved in part, or with another config."""
    saved = tuple(config.modules_to_save)
    faults = [f"modules_to_save names {name}" for name in base if _inside(name, saved) and name not in whole]
    for name, tensor in base.items():
        module = name.removesuffix(".weight")
        if module != name and len(tensor.shape) == 2 and module not in pairs and config.targets(module):
            faults.append(f"target_modules names {module}")
    return [f"{fault}, {LACKS}" for fault in faults]


def _refusal(path: Path, faults: list[str]) -> UserError:
    shown, more = faults[:3], f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    cures = {
        OTHER_BASE: "name its own base with --base DIR",
        LACKS: "train it again, or name its own base with --base DIR",
    }
    cure = next((cure for told, cure in cures.items() if any(told in fault for fault in shown)), "train without that")
    return UserError(f"{path}: {'; '.join(shown)}{more}; {cure}")


def _inside(name: str, modules: tuple[str, ...]) -> bool:
    """Is the tensor of one of the modules, or of one inside it?  PEFT compares the ends of the names."""
    parts = name.split(".")
    return any(".".join(parts[:n]).endswith(modules) for n in range(1, len(parts)))


def _misfit(module: str, pair: Mapping[str, Tensor], base: Mapping[str, Tensor], config: AdapterConfig) -> str | None:
    if pair.keys() != {"A", "B"}:
        return f"{module} lacks lora_{'B' if 'A' in pair else 'A'}"
    target = base.get(f"{module}.weight")
    if target is None and f"{module}.weight" in EMBEDDINGS:
        return f"{module} has a LoRA of its own, the base ties it to its {EMBEDDINGS[f'{module}.weight']}"
    if target is None:
        return f"{module} is no module of the base: {OTHER_BASE}"
    a, b, rank = pair["A"].shape, pair["B"].shape, config.rank(module)
    if a[:1] != (rank,):
        return f"{module} has rank {a[0] if a else 0}, {ADAPTER_CONFIG} says {rank}"
    if len(a) != 2 or len(b) != 2 or b[1] != rank or (b[0], a[1]) != target.shape:
        sizes = " and ".join(" x ".join(map(str, shape)) for shape in (b, a))
        return f"{module} is {sizes}, the base's is {' x '.join(map(str, target.shape))}: {OTHER_BASE}"
    return None
