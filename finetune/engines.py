"""Settings + base folder -> a model with LoRA layers: by `unsloth` on CUDA, by `peft` elsewhere.

Unsloth must be imported before trl, transformers and peft, and its import fails without a GPU.  So every heavy import is
inside a function, and `choose_engine` is called first.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from finetune.config import Settings
from finetune.cpu import has_bf16_units
from finetune.cuda_graphs import GraphedDecoder
from finetune.parallel.processes import local_rank
from plumbing.errors import UserError


def choose_engine(settings: Settings, preset: str) -> str:
    """The engine to use here.  Raises UserError when the preset needs a GPU and there is none."""
    import torch

    cuda = torch.cuda.is_available()
    if settings.load_in_4bit and not cuda:
        raise UserError(
            f"preset '{preset}' needs a CUDA GPU (a 4-bit base); on a CPU use preset 'tiny', or load_in_4bit=false"
        )
    if settings.engine == "unsloth" and not cuda:
        raise UserError("engine 'unsloth' needs a CUDA GPU; on a CPU use --set engine=peft")
    if settings.engine != "auto":
        return settings.engine
    if not cuda or settings.parallel == "fsdp":  # Unsloth's own FSDP2 (UNSLOTH_FSDP2=1) is not used
        return "peft"
    if importlib.util.find_spec("unsloth") is None:
        print("unsloth is not installed: training with peft (slower); `pip install unsloth` fixes that", flush=True)
        return "peft"
    return "unsloth"


def precision(settings: Settings) -> str:
    """bf16, fp16 or fp32: the setting, or by default the fastest that the hardware has."""
    import torch

    if settings.precision != "auto":
        return settings.precision
    if not torch.cuda.is_available():
        return "bf16" if has_bf16_units() else "fp32"
    return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"


def load_model(settings: Settings, engine: str, folder: Path) -> Any:
    """The base with new LoRA layers."""
    return _load_unsloth(settings, folder) if engine == "unsloth" else _load_peft(settings, folder)


def _load_unsloth(settings: Settings, folder: Path) -> Any:
    from unsloth import FastLanguageModel

    if settings.cuda_graphs:
        # Compiling takes half a minute and saves launches that a graph saves too.
        os.environ.setdefault("UNSLOTH_BLOCK_COMPILE", "0")
    dtype = _dtype(settings)
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder), max_seq_length=settings.max_length, dtype=dtype, load_in_4bit=settings.load_in_4bit
    )
    model = FastLanguageModel.get_peft_model(
        model, use_gradient_checkpointing="unsloth" if settings.checkpointing else False, random_state=settings.seed,
        **_lora(settings),
    )  # fmt: skip
    if settings.cuda_graphs:
        decoder = model.get_base_model().model
        decoder.forward = GraphedDecoder(decoder, settings.batch)
    return model


def _load_peft(settings: Settings, folder: Path) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = _dtype(settings)
    if settings.load_in_4bit:
        four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=four_bit, device_map={"": local_rank()}, dtype=dtype
        )
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.checkpointing)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    torch.manual_seed(settings.seed)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **_lora(settings)))


def _dtype(settings: Settings) -> Any:
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision(settings)]


def _lora(settings: Settings) -> dict[str, Any]:
    """The arguments that both engines call the same."""
    values = {key: getattr(settings, key) for key in ("lora_alpha", "lora_dropout", "target_modules")}
    return values | {"r": settings.lora_r, "bias": "none"}
