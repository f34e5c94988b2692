"""Expected answers through two models -> Agreement: how far apart the two are before a word is chosen.

The rows are teacher-forced: prompt and expected response are given whole, and each token of the response (the stop
token included) is predicted from what stands before it.  Only these predictions count, none of the prompt's.

KL divergence   sum over the vocabulary of P log(P / Q), in nats, P the reference's distribution and Q the measured
                one's, both at temperature 1; mean and 99th percentile over the predicted tokens of all rows
top-1           share of these tokens for which both models hold the same token for the likeliest
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.example import Example
from models.embedded import Served
from plumbing.errors import UserError

if TYPE_CHECKING:
    import numpy as np

Logits = Callable[[list[int]], "np.ndarray"]  # token ids -> one row of logits a token, of what comes behind it


@dataclass(frozen=True)
class Forced:
    """Prompt and expected response as token ids; the response begins at `start`."""

    ids: list[int]
    start: int


@dataclass(frozen=True)
class Agreement:
    measured: str  # the steps' names
    reference: str
    rows: int
    tokens: int  # predicted
    kl_mean: float  # nats
    kl_99: float
    top1: float
    left_out: int  # rows longer than num_ctx

    def __str__(self) -> str:
        long = f", {self.left_out} longer than num_ctx left out" if self.left_out else ""
        return (
            f"{self.measured} against {self.reference}: KL divergence {self.kl_mean:.2g} nats in the mean, "
            f"{self.kl_99:.2g} at the 99th percentile; top-1 agreement {100 * self.top1:.2f} % "
            f"({self.tokens} predicted tokens of {self.rows} expected answers{long})"
        )


def agree(
    measured: str, measure: Logits, reference: str, refer: Logits, rows: Sequence[Forced], num_ctx: int
) -> Agreement:
    """The figures of the docstring above, of two named steps.

    Raises UserError when no row fits num_ctx or the vocabularies differ.
    """
    import numpy as np

    fitting = [row for row in rows if len(row.ids) <= num_ctx]
    if not fitting:
        raise UserError(f"no expected answer fits num_ctx {num_ctx} with its prompt")
    found: list[Any] = []
    same: list[Any] = []
    for row in fitting:
        p, q = (log_softmax(logits(row.ids)[row.start - 1 : -1]) for logits in (refer, measure))
        if p.shape != q.shape:
            raise UserError(f"the vocabularies differ: {q.shape[1]} and {p.shape[1]} tokens")
        found.append(np.maximum(0.0, (np.exp(p) * (p - q)).sum(axis=1)))  # below 0 by rounding alone
        same.append(p.argmax(axis=1) == q.argmax(axis=1))
    kl, top1 = np.concatenate(found), np.concatenate(same)
    return Agreement(
        measured, reference, len(fitting), len(kl), float(kl.mean()), float(np.quantile(kl, 0.99)), float(top1.mean()),
        len(rows) - len(fitting),
    )  # fmt: skip


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In float64, or a divergence as small as that of two builds would be rounding alone."""
    import numpy as np

    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@contextmanager
def open_llama(path: Path, num_ctx: int) -> Iterator[Any]:
    """The GGUF in llama.cpp, set as for its answers, but keeping the logits of every token."""
    from llama_cpp import Llama

    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(given) if given.isdigit() else None  # None: llama.cpp's own choice
    llama = Llama(
        str(path), n_ctx=num_ctx, n_threads=threads, n_threads_batch=threads, seed=0, flash_attn=True, logits_all=True,
        verbose=False,
    )  # fmt: skip
    try:
        yield llama
    finally:
        llama.close()


def llama_logits(llama: Any) -> Logits:
    def logits(ids: list[int]) -> np.ndarray:
        llama.reset()
        llama.eval(ids)
        return llama.scores[: len(ids)]  # type: ignore[no-any-return]

    return logits


def torch_logits(model: Any) -> Logits:
    def logits(ids: list[int]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return model(input_ids=torch.tensor([ids])).logits[0].float().numpy()  # type: ignore[no-any-return]

    return logits


def forced_rows(llama: Any, served: Served, examples: Sequence[Example]) -> list[Forced]:
    """Each example's served prompt and expected response, cut by the GGUF's own tokenizer.

    Raises UserError when a token stands with one leg in the prompt and the other in the response.
    """
    return [_forced(llama, served, example) for example in examples]


def _forced(llama: Any, served: Served, example: Example) -> Forced:
    prompt = served.prompt(({"role": "user", "content": example.request},))
    whole = prompt + served.base.completion(example.response)
    bos = [llama.token_bos()] * served.base.add_bos
    head, ids = (bos + list(llama.tokenize(text.encode(), add_bos=False, special=True)) for text in (prompt, whole))
    if ids[: len(head)] != head:
        raise UserError(f"row '{example.id}': base '{served.base.name}' parts prompt and answer inside a token")
    return Forced(ids, len(head))
