"""A base's linear layers -> their values in a 4-bit base (bitsandbytes' NF4), some rows at a time.

64 successive values share a scale, their largest magnitude, and are rounded to 16 levels.  With double quantisation the
scales are rounded to 8 bits too: 256 successive ones share a scale, around the mean of all.
From https://arxiv.org/abs/2305.14314; tests compare the values with bitsandbytes 0.50.2.  Its CPU code cannot replace
this: it gives wrong values where the columns are not a multiple of 64, and rounds some scales to the second-nearest level.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from models.tensors import Tensor, round_to
from plumbing.errors import UserError
from plumbing.handover import read_manifest

LEVELS = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
        -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
BLOCK, SCALES = 64, 256  # values per scale, scales per second scale
Scales = Callable[[Tensor], np.ndarray]
READ = 1 << 22  # values in memory at once while the scales of a whole tensor are computed


@dataclass
class Difference:
    """How far the 4-bit values are from the 16-bit ones, over all values that were read."""

    squares: float = 0.0  # of the differences
    all: float = 0.0  # of the 16-bit values
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, before: np.ndarray, after: np.ndarray) -> None:
        squares, whole = float(np.square(after - before).sum()), float(np.square(before).sum())
        with self.lock:
            self.squares, self.all = self.squares + squares, self.all + whole

    def relative(self) -> float:
        """Root mean square of the differences, as a share of that of the 16-bit values."""
        return float(np.sqrt(self.squares / self.all)) if self.all else 0.0


@dataclass(frozen=True)
class Nf4(Tensor):
    """A tensor, or some of its rows, quantised to NF4 and back, in the type it is stored in."""

    whole: Tensor
    scales: Scales | None  # of the blocks of `whole`, if they are rounded too
    difference: Difference = field(compare=False)
    first: int = 0  # its first row in `whole`

    def rows(self, start: int, stop: int) -> Self:
        return replace(super().rows(start, stop), first=self.first + start)

    def read(self) -> np.ndarray:
        """Its first row must begin a block of 64 values."""
        before = super().read()
        begin, odd = divmod(self.first * math.prod(self.shape[1:]), BLOCK)
        assert not odd, f"{self.name}: row {self.first} begins inside a block"
        blocks = _blocks(before, BLOCK)
        largest = np.abs(blocks).max(axis=1)
        scales = self.scales(self.whole)[begin : begin + len(largest)] if self.scales else largest
        after = _nearest(blocks, largest, LEVELS)
        after *= scales[:, None]
        after = round_to(after.ravel()[: before.size].reshape(before.shape), self.dtype)
        self.difference.add(before, after)
        return after


def four_bit_base(base: Mapping[str, Tensor], adapter: Path) -> tuple[dict[str, Tensor], Difference]:
    """The base as it was during the adapter's training.  Raises UserError when that was not in 4 bits."""
    settings = read_manifest(adapter, "adapter")["settings"]
    if not settings.get("load_in_4bit"):
        raise UserError(f"{adapter}: was trained on the 16-bit base (load_in_4bit is not set); leave --onto nf4 out")
    return onto_nf4(base, double=settings.get("engine") == "unsloth")  # Unsloth always quantises the scales too


def onto_nf4(base: Mapping[str, Tensor], double: bool) -> tuple[dict[str, Tensor], Difference]:
    """The base's tensors; those of its linear layers, except the output matrix, with the values of a 4-bit base."""
    difference, scales = Difference(), _cached(_round_scales) if double else None
    linear = {name: t for name, t in base.items() if name.startswith("model.layers.") and len(t.shape) == 2}
    quantised = {name: Nf4(**vars(t), whole=t, scales=scales, difference=difference) for name, t in linear.items()}
    return {**base, **quantised}, difference


def _cached(make: Scales) -> Scales:
    """Threads that read one tensor compute its scales once; the scales of later tensors replace them."""
    kept, lock = lru_cache(maxsize=4)(make), threading.Lock()

    def get(whole: Tensor) -> np.ndarray:
        with lock:
            return kept(whole)

    return get


def _round_scales(whole: Tensor) -> np.ndarray:
    """The scales of all blocks of a tensor, rounded to 8 bits and back to float32."""
    step = max(1, READ // (math.prod(whole.shape[1:]) * BLOCK)) * BLOCK
    parts = (whole.rows(start, start + step).read() for start in range(0, whole.shape[0], step))
    scales = np.concatenate([np.abs(_blocks(part, BLOCK)).max(axis=1) for part in parts])
    mean = np.float32(scales.mean(dtype=np.float64))
    blocks = _blocks(scales - mean, SCALES)
    largest = np.abs(blocks).max(axis=1)
    rounded: np.ndarray = _nearest(blocks, largest, _dynamic_levels()) * largest[:, None]
    rounded += mean
    return rounded.ravel()[: scales.size]


def _blocks(values: np.ndarray, size: int) -> np.ndarray:
    """(blocks, size); the last block is padded with zeros."""
    flat = values.ravel()
    return np.pad(flat, (0, -flat.size % size)).reshape(-1, size)


def _nearest(blocks: np.ndarray, largest: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The level nearest to each value, in units of its block's largest magnitude."""
    scaled = blocks * (1 / np.maximum(largest, np.float32(1e-38)))[:, None]
    return np.asarray(levels[np.searchsorted((levels[:-1] + levels[1:]) / 2, scaled)])


@lru_cache
def _dynamic_levels() -> np.ndarray:
    """The 256 levels of the dynamic 8-bit type (https://arxiv.org/abs/1511.04561).

    64 lie between 0.1 and 1, in the middles of equal steps; 32 between 0.01 and 0.1, and so on; both signs; 0 and 1.
    """
    steps = [np.linspace(0.1, 1, 2**power + 1, dtype=np.float32) for power in range(7)]
    sizes = [np.float32(10.0 ** (power - 6)) * ((s[:-1] + s[1:]) / 2) for power, s in enumerate(steps)]
    positive = np.concatenate(sizes)
    return np.sort(np.concatenate([-positive, positive, [0, 1]]).astype(np.float32))
