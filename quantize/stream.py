"""Tensors -> their blocks, in order, some rows at a time.

Every thread takes the next rows through all steps: read, merge, re-order, quantise.  So no step waits for another, all
cores are busy from the first rows to the last, and the memory in use does not grow with the tensors.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from models.tensors import Tensor
from plumbing.errors import UserError
from quantize.blocks import NotFinite, Quantize
from quantize.families import Placed
from quantize.weights import Lora, Saved, merge

ROWS = 64  # a part's rows come in multiples of it, so that parts begin where blocks of any kind do
VALUES = 1 << 19  # of a part: 2 MiB in float32, near to the core's cache, yet some milliseconds of work
AHEAD = 4  # parts begun or done, a thread, while the oldest is waited for: so that no thread idles meanwhile
BYTES = 24  # a value at most while a part is made: as stored, widened, LoRA's sum, rounded twice, the blocks

Blocks = dict[str, np.ndarray]  # block type -> the rows' bytes


@dataclass(frozen=True)
class Part:
    """Some rows of one tensor, and the block types that are wanted of it."""

    placed: Placed
    tensor: Tensor
    lora: Lora | None
    kinds: tuple[str, ...]


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(tensors: Sequence[Part], threads: int) -> int:
    """Bytes that `stream` holds at most."""
    values = max(math.prod(split(tensor)[0].tensor.shape) for tensor in tensors)
    waiting = AHEAD * 2 * len(tensors[0].kinds)  # bytes a value: blocks take two at most
    return threads * values * (BYTES + waiting)


def stream(tensors: Iterable[Part], quantize: Quantize, threads: int) -> Iterator[tuple[Part, Blocks]]:
    """Each tensor in parts, and their blocks, in order.  Raises the first error, and then begins nothing more."""
    pool = ThreadPoolExecutor(threads)
    begun: deque[tuple[Part, Future[Blocks]]] = deque()
    try:
        for part in (part for tensor in tensors for part in split(tensor)):
            begun.append((part, pool.submit(make_blocks, part, quantize)))
            if len(begun) > AHEAD * threads:
                done, blocks = begun.popleft()
                yield done, blocks.result()
        while begun:
            done, blocks = begun.popleft()
            yield done, blocks.result()
    finally:
        pool.shutdown(cancel_futures=True)


def split(whole: Part) -> Sequence[Part]:
    """Parts of about VALUES values: whole heads where rows are re-ordered within a head."""
    rows, columns = whole.tensor.shape[0], math.prod(whole.tensor.shape[1:])
    unit = math.lcm(ROWS, rows // whole.placed.heads) if whole.placed.heads else ROWS
    step = max(1, VALUES // (unit * columns)) * unit
    if step >= rows:
        return [whole]
    return [_rows(whole, start, min(start + step, rows)) for start in range(0, rows, step)]


def _rows(whole: Part, start: int, stop: int) -> Part:
    placed, lora = whole.placed, whole.lora
    if placed.heads:
        placed = replace(placed, heads=placed.heads * (stop - start) // whole.tensor.shape[0])
    if lora:
        lora = replace(lora, b=lora.b.rows(start, stop))
    return replace(whole, placed=placed, tensor=whole.tensor.rows(start, stop), lora=lora)


def make_blocks(part: Part, quantize: Quantize) -> Blocks:
    """The rows' bytes as they stand in the GGUF, by type."""
    weight = part.placed.arrange(merge(part.tensor, part.lora))
    try:
        if set(part.kinds) != {"F32"}:
            return quantize(weight, dict.fromkeys(part.kinds))
        if not np.isfinite(weight).all():
            raise NotFinite
        return {"F32": weight}
    except NotFinite:
        cause = (
            "the adapter's training diverged, or the base is damaged"
            if part.lora or isinstance(part.tensor, Saved)
            else "the base is damaged"
        )
        raise UserError(
            f"{part.tensor.name}: holds values that are no numbers or beyond 65504: {cause}; make it again"
        ) from None
