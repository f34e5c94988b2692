"""Two models' token ids and logits for the same answers -> how much they differ, and is it too much?

The rows are teacher-forced: prompt and expected response are given, and each token of the response (the stop token
included) is predicted from the tokens before it.  Only these predictions count, none of the prompt's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.divergence import kl_divergence, same_top1
from plumbing.errors import UserError


class OtherVocabularyError(UserError):
    """The two models have different vocabularies: one of them was exported wrongly."""


@dataclass(frozen=True)
class Bound:
    kl_mean: float  # nats, at most
    top1: float  # share, at least; judged only where the mean KL is above TIED
    why: str


TIED = 1e-4  # nats: below it the models agree, and another top-1 is a near tie, as random weights have many
EXPORTED = Bound(
    1e-3, 0.99,
    "the f16 file holds the merged weights: only their rounding and the order of sums differ, which moves no more than "
    "near ties; a LoRA left out, a wrong scale or a tensor in a wrong place moves far more",
)  # fmt: skip
_TIMES = "four to eight times the loss measured on the embedded base of 4.6 M parameters; a larger base loses less"
QUANTISED = {  # measured there: mean KL 1.7e-5, 6.6e-4, 4.7e-3, 8.1e-3, 8.9e-3, 2.3e-2, 2.6e-2, 5.8e-2
    "bf16": Bound(0.005, 0.96, "8 bits of each number stay; weights of a bfloat16 base lose nothing"),
    "q8_0": Bound(0.005, 0.94, f"8.5 bits a weight; {_TIMES}"),
    "q6_k": Bound(0.02, 0.90, f"6.6 bits a weight; {_TIMES}"),
    "q5_k_m": Bound(0.04, 0.88, f"5.7 bits a weight; {_TIMES}"),
    "q5_k_s": Bound(0.04, 0.88, f"5.5 bits a weight; {_TIMES}"),
    "q4_k_m": Bound(0.10, 0.83, f"4.8 bits a weight; {_TIMES}"),
    "q4_k_s": Bound(0.12, 0.82, f"4.6 bits a weight; {_TIMES}"),
    "q3_k_m": Bound(0.25, 0.72, f"3.9 bits a weight; {_TIMES}"),
}
UNKNOWN = Bound(0.25, 0.72, "a type without a bound of its own is held to the loosest")
ONTO = Bound(1000.0, 0.0, "printed for the choice of --onto, not judged: an adapter may be merged onto either base")


@dataclass(frozen=True)
class Seen:
    """What one model made of the same texts and rows."""

    name: str
    ids: list[list[int]]  # of each text, by its own tokenizer
    logits: list[np.ndarray]  # of each row: (predicted tokens, vocabulary)


@dataclass(frozen=True)
class Agreement:
    measured: str
    reference: str
    texts: int
    other_ids: list[int]  # indices of the texts whose token ids differ
    rows: int
    left_out: int  # rows longer than num_ctx
    tokens: int  # predicted
    kl_mean: float  # nats, as kl_99 and kl_max
    kl_99: float  # 99th percentile
    kl_max: float
    top1: float  # share of the predicted tokens with the same top-1
    bound: Bound
    faults: list[str]  # what misses the bound

    def __str__(self) -> str:
        long = f", {self.left_out} longer than num_ctx left out" if self.left_out else ""
        missed = f"bound missed: {'; '.join(self.faults)} ({self.bound.why})"
        return (
            f"{self.measured} against {self.reference}: KL divergence {self.kl_mean:.2g} nats mean, "
            f"{self.kl_99:.2g} at the 99th percentile, {self.kl_max:.2g} maximum; top-1 agreement "
            f"{100 * self.top1:.2f} % ({self.tokens} predicted tokens of {self.rows} expected answers{long}); same token "
            f"ids in {self.texts - len(self.other_ids)} of {self.texts} texts: {missed if self.faults else 'within bounds'}"
        )


def compare(measured: Seen, reference: Seen, bound: Bound, left_out: int = 0) -> Agreement:
    """Raises OtherVocabularyError when the vocabularies differ in size."""
    pairs = list(zip(reference.logits, measured.logits, strict=True))
    sizes = pairs[0][0].shape[1], pairs[0][1].shape[1]
    if sizes[0] != sizes[1]:
        raise OtherVocabularyError(
            f"{measured.name}: {sizes[1]} tokens in its vocabulary, {sizes[0]} in that of {reference.name}; export it again"
        )
    kl = np.concatenate([kl_divergence(*pair) for pair in pairs])
    top1, mean = float(np.concatenate([same_top1(*pair) for pair in pairs]).mean()), float(kl.mean())
    other_ids = [n for n, (a, b) in enumerate(zip(measured.ids, reference.ids, strict=True)) if a != b]
    return Agreement(
        measured.name, reference.name, len(measured.ids), other_ids, len(pairs), left_out, len(kl), mean,
        float(np.quantile(kl, 0.99)), float(kl.max()), top1, bound,
        _faults(other_ids, len(measured.ids), mean, top1, bound),
    )  # fmt: skip


def _faults(other_ids: Sequence[int], texts: int, mean: float, top1: float, bound: Bound) -> list[str]:
    """Each comparison is negated, so that NaN is a fault too."""
    faults = [f"{len(other_ids)} of {texts} texts have other token ids"] if other_ids else []
    if not mean <= bound.kl_mean:
        faults.append(f"mean KL {mean:.2g} is above {bound.kl_mean:g}")
    if not (top1 >= bound.top1 or mean <= TIED):
        faults.append(f"top-1 {100 * top1:.1f} % is below {100 * bound.top1:g} %")
    return faults
