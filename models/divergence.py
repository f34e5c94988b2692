"""Two models' logits for the same tokens -> how far apart their predictions are.

P is the reference's distribution over the vocabulary, Q the measured model's, both at temperature 1.
"""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(tokens, vocabulary) logits x -> log probabilities, x(i) - log(sum over j of exp(x(j))).

    In float64, because the divergence between two builds of one model is as small as float32's rounding.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)  # exp() cannot overflow then
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def kl_divergence(reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(tokens,) in nats: the sum over the vocabulary of P log(P / Q).  Both arguments are logits.

    >>> kl_divergence(np.log([[0.75, 0.25]]), np.log([[0.25, 0.75]])).round(4).tolist()  # ln(3) / 2
    [0.5493]
    """
    p, q = log_softmax(reference), log_softmax(measured)
    divergence: np.ndarray = (np.exp(p) * (p - q)).sum(axis=1)
    return divergence.clip(min=0.0)  # only rounding makes it less than 0


def same_top1(reference: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """(tokens,) booleans: both models predict the same token.  Both arguments are logits.

    >>> same_top1(np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([[0.0, 9.0], [0.0, 9.0]])).tolist()
    [True, False]
    """
    return np.asarray(reference.argmax(axis=1) == measured.argmax(axis=1))
