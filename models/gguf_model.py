"""A model folder's GGUF -> the model in llama.cpp: the token ids of a text, the logits of token ids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.base import Base
from plumbing.errors import UserError
from plumbing.handover import read_manifest, sha256


@dataclass(frozen=True)
class GgufModel:
    llama: Any  # llama_cpp.Llama
    add_bos: bool

    def tokenize(self, text: str) -> list[int]:
        """Token ids.  Special tokens are parsed; the begin-of-sequence token is added once, here."""
        ids = self.llama.tokenize(text.encode("utf-8"), add_bos=False, special=True)
        return [self.llama.token_bos()] * self.add_bos + list(ids)

    def piece(self, token: int) -> bytes:
        """The text of a token."""
        return bytes(self.llama.detokenize([token]))

    def logits(self, ids: list[int]) -> np.ndarray:
        """(len(ids), vocabulary) float32: row n predicts the token after ids[n].  Needs `all_logits`."""
        self.llama.reset()
        self.llama.eval(ids)
        return np.array(self.llama.scores[: len(ids)])


def checked_digest(path: Path) -> str:
    """The file's sha256.  Raises UserError unless it is the one that the export wrote into the folder's manifest.

    llama.cpp itself would load damaged weights and answer noise.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; `python -m quantize ADAPTER_DIR --out DIR` writes model.<type>.gguf")
    manifest, digest = read_manifest(path.parent, "model"), sha256(path)
    if manifest["outputs"].get(path.name) != digest:
        raise UserError(
            f"{path}: not the file that was exported (cut short or changed); run `python -m quantize` again"
        )
    return digest


@contextmanager
def open_llama(path: Path, base: Base, num_ctx: int, all_logits: bool = False) -> Iterator[GgufModel]:
    """Load the GGUF with room for `num_ctx` tokens.  `all_logits`: keep those of every token, not only the last.

    Raises UserError when llama-cpp-python is missing or cannot load the file.
    """
    try:
        from llama_cpp import Llama
    except ImportError:
        raise UserError(f"{path}: needs the package llama-cpp-python; `make setup` installs it") from None
    given = os.environ.get("OMP_NUM_THREADS", "")  # on shared processors fewer threads are faster
    threads = int(given) if given.isdigit() and int(given) else None  # None: llama.cpp decides
    try:  # flash attention as in Ollama: without it the last digits differ, and then some answers
        llama = Llama(
            str(path), n_ctx=num_ctx, n_threads=threads, n_threads_batch=threads, seed=0, flash_attn=True,
            logits_all=all_logits, verbose=False,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"{path}: llama.cpp cannot load it ({error}); run `python -m quantize` again") from None
    try:
        yield GgufModel(llama, base.add_bos)
    finally:
        llama.close()
