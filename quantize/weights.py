"""A base's tensors + a LoRA adapter -> merged tensors, one at a time.

The sums (in float32) and roundings are those of PEFT's merge_and_unload, without its copy of the whole model.
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

PREFIX = "base_model.model."  # PEFT puts it before the base's own module names
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
    """A fully trained tensor: it replaces the base's, rounded to the type that the base is stored in."""

    stored: str  # the base's dtype

    def read(self) -> np.ndarray:
        return round_to(super().read(), self.stored)


def open_adapter(folder: Path, base: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Lora]]:
    """The base's tensors, with the adapter's replacements, and tensor name -> LoRA.

    Raises UserError when something cannot be merged, or the adapter belongs to another base.
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
    """Module -> its LoRA's A and B; name -> each other tensor, which replaces one of the base."""
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
    with np.errstate(invalid="ignore", over="ignore"):  # the quantiser refuses it and names the tensor
        delta = lora.b.read() @ lora.a.read()
        delta *= np.float32(lora.scale)
        weight += delta
    return round_to(weight, tensor.dtype)


def _misfits(whole: Mapping[str, Tensor], base: Mapping[str, Tensor], config: AdapterConfig) -> list[str]:
    """Why a fully trained tensor cannot replace one of the base."""
    saved, tied = tuple(config.modules_to_save), EMBEDDINGS.keys() - base.keys()
    faults = []
    for name, tensor in whole.items():
        if name in tied and config.ensure_weight_tying:
            continue  # a second copy of the embedding
        if not _inside(name, saved):
            faults.append(f"{name} is not a lora_A or lora_B of a linear layer and cannot be merged")
        elif name in EMBEDDINGS and tied and not config.ensure_weight_tying:
            faults.append(f"{name} was trained without its twin: the base ties it to its {EMBEDDINGS[name]}")
        elif name not in base:
            faults.append(f"{name} is not a tensor of the base: {OTHER_BASE}")
        elif tensor.shape != base[name].shape:
            sizes = (" x ".join(map(str, t.shape)) for t in (tensor, base[name]))
            faults.append(f"{name} is {next(sizes)}, the base's is {next(sizes)}: {OTHER_BASE}")
    return faults


def _absent(
    whole: Collection[str], pairs: Collection[str], base: Mapping[str, Tensor], config: AdapterConfig
) -> list[str]:
    """What the config names and the file lacks: the training was saved in part, or with another config."""
    saved = tuple(config.modules_to_save)
    faults = [f"modules_to_save names {name}" for name in base if _inside(name, saved) and name not in whole]
    for name, tensor in base.items():
        module = name.removesuffix(".weight")
        if module != name and len(tensor.shape) == 2 and module not in pairs and config.targets(module):
            faults.append(f"target_modules names {module}")
    return [f"{fault}, {LACKS}" for fault in faults]


def _refusal(path: Path, faults: list[str]) -> UserError:
    shown, more = faults[:3], f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    named = "name its own base with --base DIR"
    cures = {OTHER_BASE: named, LACKS: f"train it again, or {named}"}
    cure = next((cure for cause, cure in cures.items() if any(cause in fault for fault in shown)), "train without that")
    return UserError(f"{path}: {'; '.join(shown)}{more}; {cure}")


def _inside(name: str, modules: tuple[str, ...]) -> bool:
    """Does the tensor belong to one of the modules, or to one inside it?  PEFT compares the ends of the names."""
    parts = name.split(".")
    return any(".".join(parts[:n]).endswith(modules) for n in range(1, len(parts)))


def _misfit(module: str, pair: Mapping[str, Tensor], base: Mapping[str, Tensor], config: AdapterConfig) -> str | None:
    if pair.keys() != {"A", "B"}:
        return f"{module} lacks lora_{'B' if 'A' in pair else 'A'}"
    target = base.get(f"{module}.weight")
    if target is None and f"{module}.weight" in EMBEDDINGS:
        return f"{module} has a separate LoRA, the base ties it to its {EMBEDDINGS[f'{module}.weight']}"
    if target is None:
        return f"{module} is not a module of the base: {OTHER_BASE}"
    a, b, rank = pair["A"].shape, pair["B"].shape, config.rank(module)
    if a[:1] != (rank,):
        return f"{module} has rank {a[0] if a else 0}, {ADAPTER_CONFIG} says {rank}"
    if len(a) != 2 or len(b) != 2 or b[1] != rank or (b[0], a[1]) != target.shape:
        sizes = " and ".join(" x ".join(map(str, shape)) for shape in (b, a))
        return f"{module} is {sizes}, the base's is {' x '.join(map(str, target.shape))}: {OTHER_BASE}"
    return None
