"""A GGUF in llama.cpp -> a Model: token ids of a text, logits of token ids, its own answer to a prompt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.base import Base
from plumbing.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from llama_cpp import Llama


@dataclass(frozen=True)
class Model:
    llama: Llama
    add_bos: bool

    def tokenize(self, text: str) -> list[int]:
        ids = list(self.llama.tokenize(text.encode(), add_bos=False, special=True))
        return [self.llama.token_bos(), *ids] if self.add_bos else ids

    def logits(self, ids: list[int]) -> np.ndarray:
        """(len(ids), vocabulary): behind each token what is expected next."""
        self.llama.reset()
        return self._feed(ids)

    def greedy(self, ids: list[int], stop: int, most: int) -> list[int]:
        """The likeliest token, again and again: at most `most`, the stop token included."""
        made: list[int] = []
        rows = self.logits(ids)
        while len(made) < most:
            made.append(int(rows[-1].argmax()))
            if made[-1] == stop:
                break
            rows = self._feed(made[-1:])
        return made

    def _feed(self, ids: list[int]) -> np.ndarray:
        """Go on behind what was fed before."""
        start = self.llama.n_tokens
        self.llama.eval(ids)
        return self.llama.scores[start : start + len(ids)].copy()  # type: ignore[no-any-return]


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

    try:
        yield Model(llama, base.add_bos)
    finally:
        llama.close()
