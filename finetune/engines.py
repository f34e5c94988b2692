"""Settings + base folder -> a model with LoRA layers.  `unsloth` on CUDA, `peft` elsewhere; the rest of the path is one.

Unsloth must be imported before trl, transformers and peft, and fails to import without a GPU: so every heavy import is
inside a function, and `choose_engine` comes first.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from finetune.config import Settings
from finetune.cpu import has_bf16_units
from finetune.cuda_graphs import graph_decoder
from finetune.parallel.processes import local_rank
from plumbing.errors import UserError


def choose_engine(settings: Settings, preset: str) -> str:
    """The engine to use here.  Raises UserError when the preset needs a GPU that is not there."""
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
    if not cuda or settings.parallel == "fsdp":  # Unsloth has an FSDP2 of its own (UNSLOTH_FSDP2=1), not run here
        return "peft"
    if importlib.util.find_spec("unsloth") is None:
        print("unsloth is not installed: training with peft (slower); `pip install unsloth` mends it", flush=True)
        return "peft"
    return "unsloth"


def import_engine(engine: str) -> None:
    """Unsloth mends trl, transformers and peft as they are imported, so it comes before them."""
    if engine == "unsloth":
        import unsloth  # noqa: F401


def precision(settings: Settings) -> str:
    """bf16, fp16 or fp32: what is asked for, else what the hardware can."""
    import torch

    if settings.precision != "auto":
        return settings.precision
    if not torch.cuda.is_available():
        return "bf16" if has_bf16_units() else "fp32"
    return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp16"


def load_model(settings: Settings, engine: str, folder: Path) -> Any:
    """The base with fresh LoRA layers on it."""
    return _load_unsloth(settings, folder) if engine == "unsloth" else _load_peft(settings, folder)


def _load_unsloth(settings: Settings, folder: Path) -> Any:
    import torch
    from unsloth import FastLanguageModel

    if settings.cuda_graphs:
        os.environ.setdefault("UNSLOTH_BLOCK_COMPILE", "0")  # half a minute to save launches that a graph saves too
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision(settings)]
    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder), max_seq_length=settings.max_length, dtype=dtype, load_in_4bit=settings.load_in_4bit
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        bias="none",
        use_gradient_checkpointing="unsloth" if settings.checkpointing else False,
        random_state=settings.seed,
    )
    if settings.cuda_graphs:
        graph_decoder(model, settings.batch)
    return model


def _load_peft(settings: Settings, folder: Path) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision(settings)]
    if settings.load_in_4bit:
        four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=four_bit, device_map={"": local_rank()}, dtype=dtype
        )
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.checkpointing)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    torch.manual_seed(settings.seed)
    lora = LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)
