"""Base + adapter in torch, or a GGUF in llama.cpp -> a Model: token ids of a text, logits of token ids."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.base import Base
from contract.errors import UserError
from contract.tokenizer import load_tokenizer
from quantize.nf4 import Nf4, four_bit_base
from quantize.tensors import open_base

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Model:
    """One of the models compared; `feed` goes on where it ended, until `reset`."""

    name: str
    tokenize: Callable[[str], list[int]]
    reset: Callable[[], None]
    feed: Callable[[list[int]], np.ndarray]  # token ids -> a row of logits each, of what comes behind it

    def logits(self, ids: list[int]) -> np.ndarray:
        self.reset()
        return self.feed(ids)

    def greedy(self, ids: list[int], stop: int, most: int) -> list[int]:
        """The likeliest token, again and again: at most `most`, the stop token included."""
        made: list[int] = []
        self.reset()
        rows = self.feed(ids)
        while len(made) < most:
            made.append(int(rows[-1].argmax()))
            if made[-1] == stop:
                break
            rows = self.feed(made[-1:])
        return made


@contextmanager
def open_torch(folder: Path, adapter: Path | None, base: Base, onto: str = "16bit") -> Iterator[Model]:
    """The model as it was trained: the base widened to float32 on the CPU, the LoRA beside its weights, not merged."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = load_tokenizer(folder, base)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter and onto == "nf4":
        for name, tensor in four_bit_base(open_base(folder), adapter)[0].items():
            if isinstance(tensor, Nf4):
                model.get_parameter(name).data = torch.from_numpy(tensor.read())
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    past: list[Any] = [None]

    def reset() -> None:
        past[0] = None

    def feed(ids: list[int]) -> np.ndarray:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids]), past_key_values=past[0], use_cache=True)
        past[0] = out.past_key_values
        return out.logits[0].float().numpy()  # type: ignore[no-any-return]

    def tokenize(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=base.add_bos)["input_ids"])

    yield Model("torch", tokenize, reset, feed)


@contextmanager
def open_gguf(path: Path, base: Base, tokens: int) -> Iterator[Model]:
    """The GGUF as llama.cpp runs it, with room for `tokens`.  Raises UserError when it cannot be loaded."""
    try:
        from llama_cpp import Llama
    except ImportError:
        raise UserError("the check needs the package llama-cpp-python; `make setup` installs it") from None
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdigit() and int(given) else None  # None: llama.cpp's own choice
    try:  # flash attention as in Ollama
        llama = Llama(
            str(path), n_ctx=tokens, n_threads=threads, n_threads_batch=threads, flash_attn=True, logits_all=True,
            verbose=False,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"{path}: llama.cpp cannot load it ({error}); run `python -m quantize` again") from None

    def feed(ids: list[int]) -> np.ndarray:
        start = llama.n_tokens
        llama.eval(ids)
        return llama.scores[start : start + len(ids)].copy()  # type: ignore[no-any-return]

    def tokenize(text: str) -> list[int]:
        return [llama.token_bos()] * base.add_bos + list(llama.tokenize(text.encode(), add_bos=False, special=True))

    try:
        yield Model(path.name, tokenize, llama.reset, feed)
    finally:
        llama.close()
