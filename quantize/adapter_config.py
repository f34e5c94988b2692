"""PEFT's adapter_config.json -> which modules have a LoRA, with which rank and scale."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from plumbing.errors import UserError, faults_error
from plumbing.toml_file import fill

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Features of PEFT that change more than W + scale * B @ A.  A plain merge would drop them without a warning.
UNMERGEABLE = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "trainable_token_indices", "target_parameters",
    "layer_replication", "alora_invocation_tokens", "kasa_config", "monteclora_config", "arrow_config", "velora_config",
)  # fmt: skip
INITS = (True, False, "gaussian", "orthogonal", "eva")  # of LoRA weights; any other also rewrites the base's weights
LARGEST = 1e9  # of a rank or an alpha


@dataclass(frozen=True)
class AdapterConfig:
    """The fields of PEFT's LoraConfig that say where a LoRA is and how it is scaled."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    target_modules: str | list[str] = field(default_factory=list)  # a pattern of whole names, or the ends of names
    exclude_modules: str | list[str] = field(default_factory=list)
    layers_to_transform: int | list[int] = field(default_factory=list)  # none: all
    layers_pattern: str | list[str] = ""
    modules_to_save: list[str] = field(default_factory=list)
    ensure_weight_tying: bool = False

    def rank(self, module: str) -> int:
        return _pattern(self.rank_pattern, module, self.r)

    def scale(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) with rslora (https://arxiv.org/abs/2312.03732)."""
        rank, alpha = self.rank(module), _pattern(self.alpha_pattern, module, self.lora_alpha)
        return float(alpha / (math.sqrt(rank) if self.use_rslora else rank))

    def targets(self, module: str) -> bool:
        """Does PEFT put a LoRA on this linear layer?  The rules of its check_target_module_exists."""
        saved = any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.modules_to_save)
        if saved or _named(self.exclude_modules, module) or not _named(self.target_modules, module):
            return False
        if isinstance(self.target_modules, str) or module in self.target_modules or self.layers_to_transform == []:
            return True
        numbers, patterns = self.layers_to_transform, self.layers_pattern or r"[^.]*"
        layers = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module) for pattern in _listed(patterns))
        layer = next((int(match[1]) for match in layers if match), None)
        return layer in (numbers if isinstance(numbers, list) else [numbers])


def read_adapter_config(path: Path) -> AdapterConfig:
    """Raises UserError naming everything that prevents a merge."""
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = table["peft_type"]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: not a finished adapter; train it again") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a PEFT adapter's config ({error}); train the adapter again") from None
    lost = _lost(table, kind)
    if lost:
        raise faults_error(str(path), [*lost[:-1], f"{lost[-1]}; train without it"])
    known = {one.name: table[one.name] for one in fields(AdapterConfig) if table.get(one.name) is not None}
    config = fill(AdapterConfig, known, str(path))
    faults = _faults(config)
    if faults:
        raise faults_error(str(path), [*faults[:-1], f"{faults[-1]}; train the adapter again"])
    return config


def _lost(table: Mapping[str, Any], kind: object) -> list[str]:
    """What a plain merge would lose of the training."""
    if kind != "LORA":
        return [f"peft_type is {kind!r}, expected LORA"]
    faults = [f"{key} is set, which a plain merge would lose" for key in UNMERGEABLE if table.get(key)]
    if table.get("bias", "none") != "none":
        faults.append(f"bias is {table['bias']!r}, which a plain merge would lose")
    if table.get("init_lora_weights", True) not in INITS:
        faults.append(f"init_lora_weights is {table['init_lora_weights']!r}, which changes the base's weights too")
    return faults


def _faults(config: AdapterConfig) -> list[str]:
    """Values of the right type that make no sense."""
    numbers = [("r", config.r), ("lora_alpha", config.lora_alpha)]
    numbers += [("rank_pattern", rank) for rank in config.rank_pattern.values()]
    numbers += [("alpha_pattern", alpha) for alpha in config.alpha_pattern.values()]
    faults = [f"{key} is {value}, expected a number above 0" for key, value in numbers if not 0 < value < LARGEST]
    patterns = [*config.rank_pattern, *config.alpha_pattern, *config.modules_to_save, *_listed(config.layers_pattern)]
    patterns += [one for one in (config.target_modules, config.exclude_modules) if isinstance(one, str)]
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            faults.append(f"{pattern!r} is not a pattern of module names ({error})")
    return faults


def _pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value for one module: of the first pattern that matches the end of its name, otherwise the default."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _named(names: str | list[str], module: str) -> bool:
    if isinstance(names, str):
        return bool(names and re.fullmatch(names, module))
    return any(module == name or module.endswith(f".{name}") for name in names)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
