"""What two models made of the same prompts -> how far apart they are, and whether that is more than rounding.

Over the tokens of the answers, each predicted from what stands before it (teacher-forced, the stop token included):

KL divergence   sum over the vocabulary of P log(P / Q), in nats, P the reference's distribution; mean and maximum
top-1           share of these tokens for which both models hold the same token for the likeliest; judged above TIED alone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from plumbing.errors import UserError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Bound:
    kl_mean: float  # nats, at most
    top1: float  # share, at least
    why: str


EXPORTED = Bound(
    1e-3, 0.99,
    "the f16 file holds the merged weights: only their rounding and the order of sums differ, which moves no more than "
    "near ties; a LoRA left out, a wrong scale or a tensor in a wrong place moves far more",
)  # fmt: skip
TIED = 1e-4  # nats: below it both say the same, and another top-1 is a near tie; random weights know nothing else
_TIMES = "four to eight times what the embedded base of 4.6 M parameters was seen to lose; a larger base loses less"
QUANTISED = {  # seen there: mean KL 1.7e-5, 6.6e-4, 4.7e-3, 8.1e-3, 8.9e-3, 2.3e-2, 2.6e-2, 5.8e-2
    "bf16": Bound(0.005, 0.96, "8 bits of each number stay; weights of a bfloat16 base lose nothing"),
    "q8_0": Bound(0.005, 0.94, f"8.5 bits a weight; {_TIMES}"),
    "q6_k": Bound(0.02, 0.90, f"6.6 bits a weight; {_TIMES}"),
    "q5_k_m": Bound(0.04, 0.88, f"5.7 bits a weight; {_TIMES}"),
    "q5_k_s": Bound(0.04, 0.88, f"5.5 bits a weight; {_TIMES}"),
    "q4_k_m": Bound(0.10, 0.83, f"4.8 bits a weight; {_TIMES}"),
    "q4_k_s": Bound(0.12, 0.82, f"4.6 bits a weight; {_TIMES}"),
    "q3_k_m": Bound(0.25, 0.72, f"3.9 bits a weight; {_TIMES}"),
}
ONTO = Bound(1000.0, 0.0, "told for the choice of --onto, not judged: an adapter may be merged onto either base")
UNKNOWN = Bound(0.25, 0.72, "a type without a bound of its own is held to the loosest")


@dataclass(frozen=True)
class Seen:
    """What one model made of the prompts."""

    name: str
    ids: list[list[int]]  # of each text, by its own tokenizer
    logits: list[Any]  # of each answer: (tokens, vocabulary); the token ids were the reference's
    greedy: list[list[int]]  # its own answer to each prompt


@dataclass(frozen=True)
class Compared:
    measured: str
    reference: str
    texts: int
    other_ids: list[int]  # numbers of the texts that both tokenize otherwise
    tokens: int  # predicted
    kl_mean: float
    kl_max: float
    top1: float
    prompts: int
    diverging: int  # prompts whose greedy answers differ
    first: dict[str, int] | None  # the earliest diverging token: prompt, position, reference's and measured's token
    bound: Bound
    faults: list[str]  # what misses the bound


def compare(measured: Seen, reference: Seen, bound: Bound) -> Compared:
    """Raises UserError when the vocabularies differ in size."""
    import numpy as np

    kls, same = [], []
    for mine, other in zip(measured.logits, reference.logits, strict=True):
        if mine.shape != other.shape:
            raise UserError(
                f"{measured.name}: {mine.shape[1]} tokens in its vocabulary, {other.shape[1]} in the base's"
            )
        p, q = log_softmax(other), log_softmax(mine)
        kls.append(np.maximum(0.0, (np.exp(p) * (p - q)).sum(axis=1)))  # below 0 by rounding alone
        same.append(p.argmax(axis=1) == q.argmax(axis=1))
    kl, top1 = np.concatenate(kls), float(np.concatenate(same).mean())
    other_ids = [n for n, (a, b) in enumerate(zip(measured.ids, reference.ids, strict=True)) if a != b]
    found = _diverging(measured.greedy, reference.greedy)
    mean, most = float(kl.mean()), float(kl.max())
    return Compared(
        measured.name, reference.name, len(measured.ids), other_ids, len(kl), mean, most, top1, len(measured.greedy),
        len(found), min(found, key=lambda one: one["position"], default=None), bound,
        _faults(len(other_ids), len(measured.ids), mean, top1, bound),
    )  # fmt: skip


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """In float64, or a divergence as small as that of two roundings would be rounding alone."""
    import numpy as np

    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _diverging(measured: Sequence[list[int]], reference: Sequence[list[int]]) -> list[dict[str, int]]:
    """Where each pair of greedy answers parts; -1 stands for an answer that has ended."""
    found = []
    for prompt, (mine, other) in enumerate(zip(measured, reference, strict=True)):
        if mine != other:
            position = next(
                (n for n, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), min(len(mine), len(other))
            )
            tokens = [ids[position] if position < len(ids) else -1 for ids in (other, mine)]
            found.append({"prompt": prompt, "position": position, "reference": tokens[0], "measured": tokens[1]})
    return found


def _faults(other_ids: int, texts: int, mean: float, top1: float, bound: Bound) -> list[str]:
    """Written so that a value which is no number fails too."""
    faults = [f"{other_ids} of {texts} texts have other token ids"] if other_ids else []
    if not mean <= bound.kl_mean:
        faults.append(f"mean KL {mean:.2g} is above {bound.kl_mean:g}")
    if not (top1 >= bound.top1 or mean <= TIED):
        faults.append(f"top-1 {100 * top1:.1f} % is below {100 * bound.top1:g} %")
    return faults
