"""Scores + recent tokens -> scores after llama.cpp's penalties, as Ollama applies them.

The tokens of the prompt count too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def penalises(options: Mapping[str, Any]) -> bool:
    """Whether these options can change a score."""
    return bool(options["repeat_last_n"]) and (options["repeat_penalty"] != 1.0 or options["frequency_penalty"] != 0.0)


def penalise(scores: np.ndarray, tokens: Sequence[int] | np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """The next token's scores, float32 (vocabulary,), lowered for each of the last `repeat_last_n` tokens (-1: all).

    repeat_penalty divides a score once (multiplies it if it is below 0); frequency_penalty is subtracted per occurrence.

    >>> options = {"repeat_last_n": -1, "repeat_penalty": 2.0, "frequency_penalty": 0.5}
    >>> penalise(np.array([4.0, -1.0, 3.0]), [0, 0, 1], options).tolist()
    [1.0, -2.5, 3.0]
    """
    last = options["repeat_last_n"]
    seen, counts = np.unique(tokens if last < 0 else tokens[-last:], return_counts=True)
    scores = np.array(scores)
    held = scores[seen]
    held = np.where(held > 0, held / options["repeat_penalty"], held * options["repeat_penalty"])
    scores[seen] = held - counts * options["frequency_penalty"]
    return scores
