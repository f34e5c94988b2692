"""A base's folder + its adapter -> the logits of the model as it was trained: float32, the LoRA beside its weights, not merged.

All sequences go through the layers together.  A matrix is read when its turn comes and let go after it, so that a 7B
needs the memory of its largest matrix and of what passes between the layers, not 28 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.base import Base
from models.tensors import Tensor, open_base
from models.tokenizer import load_tokenizer
from quantize.nf4 import Nf4, four_bit_base

if TYPE_CHECKING:
    import numpy as np
    import torch

Answer = tuple[list[int], int]  # token ids of prompt and answer, and how many of them are the prompt's
_EMBEDDING = "model.embed_tokens.weight"  # the output matrix too, where that is not stored
_OWN = ".base_layer."  # the base's own weights, which PEFT stores beside an output matrix's LoRA
LIBRARIES = 800_000_000  # bytes: torch, transformers and PEFT, imported


def training_tokenizer(folder: Path, base: Base) -> Callable[[str], list[int]]:
    tokenizer = load_tokenizer(folder, base)
    return lambda text: list(tokenizer(text, add_special_tokens=base.add_bos)["input_ids"])


def torch_memory(folder: Path, answers: Sequence[Answer]) -> int:
    """Bytes that `torch_logits` takes at most: what passes through a layer, the largest matrix, the logits, another's too.

    Seen on 8 layers of the 7B's shape: 1.5 GB where this says 1.8 (8 answers), 3.7 where it says 4.2 (32).
    """
    tensors = open_base(folder)
    largest = max(math.prod(tensor.shape) for tensor in tensors.values())
    widest = sum(tensors[f"model.layers.0.{part}_proj.weight"].shape[0] for part in ("mlp.gate", "mlp.up", "mlp.down"))
    passing = len(answers) * max(len(ids) for ids, _ in answers) * 3 * widest // 2
    vocabulary = tensors[_EMBEDDING].shape[0]
    return LIBRARIES + 4 * (largest + passing + 2 * vocabulary * sum(len(ids) - start for ids, start in answers))


def torch_logits(folder: Path, adapter: Path | None, onto: str, answers: Sequence[Answer]) -> list[np.ndarray]:
    """Of each answer (tokens, vocabulary): what the model expects of every token behind those before it."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    tensors = open_base(folder)
    if adapter and onto == "nf4":
        tensors, _ = four_bit_base(tensors, adapter)
    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    _lend_weights(model, tensors)
    if adapter:
        from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

        config = PeftConfig.from_pretrained(adapter)
        config.base_model_name_or_path = model.name_or_path  # proved by its digest; PEFT would warn of another folder
        trained = {key: value for key, value in load_peft_weights(str(adapter), "cpu").items() if _OWN not in key}
        set_peft_model_state_dict(get_peft_model(model, config), trained)
    model.eval()
    longest = max(len(ids) for ids, _ in answers)
    padded = [ids + [0] * (longest - len(ids)) for ids, _ in answers]  # behind its end: no token looks ahead
    with torch.inference_mode():
        hidden = model.model(input_ids=torch.tensor(padded), use_cache=False).last_hidden_state
        kept = [hidden[n, start - 1 : len(ids) - 1] for n, (ids, start) in enumerate(answers)]
        logits = model.lm_head(torch.cat(kept)).numpy()
    ends = [sum(len(rows) for rows in kept[: n + 1]) for n in range(len(kept))]
    return [logits[end - len(rows) : end] for rows, end in zip(kept, ends, strict=True)]


def _lend_weights(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Let each module read its weights before it is called, and give them back after."""
    import torch

    def lend(owner: torch.nn.Module, sources: Mapping[str, Tensor]) -> None:
        # A single zero seen as a matrix: PEFT finds shape and device there, and no memory is taken.
        empty = {key: torch.zeros(()).expand(getattr(owner, key).shape) for key in sources}

        def take(weights: Mapping[str, torch.Tensor]) -> None:
            for key, weight in weights.items():
                owner._parameters[key] = torch.nn.Parameter(weight, requires_grad=False)

        take(empty)
        owner.register_forward_pre_hook(lambda *_: take({key: _read(tensor) for key, tensor in sources.items()}))
        owner.register_forward_hook(lambda *_: take(empty))

    for name, module in model.named_modules():
        tied = name == "lm_head" and "lm_head.weight" not in tensors
        parts = [key for key, _ in module.named_parameters(recurse=False)]
        if parts:
            lend(module, {key: tensors[_EMBEDDING if tied else f"{name}.{key}"] for key in parts})


def _read(tensor: Tensor) -> torch.Tensor:
    """In float32.  By safetensors' own reader, so that a fault of the export's would show."""
    import torch
    from safetensors import safe_open

    if isinstance(tensor, Nf4):
        return torch.from_numpy(tensor.read())
    with safe_open(tensor.path, "pt") as file:
        return file.get_tensor(tensor.name).float()
