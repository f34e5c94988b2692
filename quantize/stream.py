"""Tensors -> their quantised blocks, in order, some rows at a time, by ggml's own quantiser.

Each thread takes the next rows through all steps: read, merge, re-order, quantise.  So no step waits for another, all
cores are busy from the first rows to the last, and memory does not grow with the tensors.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from models.tensors import Tensor
from plumbing.errors import UserError
from quantize.layout import Placed
from quantize.weights import Lora, Saved, merge

ROWS = 64  # a part has a multiple of so many rows, so that parts begin where blocks of any kind begin
VALUES = 1 << 19  # of a part: 2 MiB in float32, about the core's cache, and yet some milliseconds of work
AHEAD = 4  # parts a thread may start before the oldest part is written, so that no thread is idle
BYTES = 24  # a value at most while a part is made: as stored, widened, LoRA's sum, rounded twice, the blocks
LIBRARY = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(sys.platform, "libggml-base.so")

Blocks = dict[str, np.ndarray]  # block type -> the rows' bytes, uint8 (rows, bytes a row)
Quantize = Callable[[np.ndarray, Iterable[str]], Blocks]  # float32 (rows, columns), types -> blocks.  Raises NotFinite.


class NotFinite(ValueError):
    """The matrix holds NaN, infinity, or a value beyond float16's 65504."""


@dataclass(frozen=True)
class Part:
    """Some rows of one tensor, and the block types to make from them."""

    placed: Placed
    tensor: Tensor
    lora: Lora | None
    kinds: tuple[str, ...]


def cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(tensors: Sequence[Part], threads: int) -> int:
    """Bytes that `stream` holds at most."""
    values = max(math.prod(split(tensor)[0].tensor.shape) for tensor in tensors)
    waiting = AHEAD * 2 * len(tensors[0].kinds)  # bytes a value: blocks take two at most
    return threads * values * (BYTES + waiting)


def stream(tensors: Iterable[Part], quantize: Quantize, threads: int) -> Iterator[tuple[Part, Blocks]]:
    """Each tensor in parts, and their blocks, in order.  At the first error it begins no further part and raises the error."""
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
    """The rows' bytes as the GGUF holds them, by type."""
    weight = part.placed.arrange(merge(part.tensor, part.lora))
    try:
        if set(part.kinds) != {"F32"}:
            return quantize(weight, dict.fromkeys(part.kinds))
        if not np.isfinite(weight).all():
            raise NotFinite
        return {"F32": weight}
    except NotFinite:
        trained = part.lora or isinstance(part.tensor, Saved)
        cause = "the adapter's training diverged, or the base is damaged" if trained else "the base is damaged"
        raise UserError(
            f"{part.tensor.name}: holds values that are not numbers or beyond 65504: {cause}; make it again"
        ) from None


def load_quantizer() -> Quantize:
    """The quantiser in the installed llama-cpp-python.  It releases the GIL.  Raises UserError when it is missing."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    library = _load_library()

    def quantize(matrix: np.ndarray, kinds: Iterable[str]) -> dict[str, np.ndarray]:
        half, values = _round(library, np.ascontiguousarray(matrix))
        rows, columns = matrix.shape
        made = {}
        for kind in kinds:
            if kind == "F16":
                made[kind] = half.view(np.uint8)
                continue
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
            out = np.empty((rows, columns // block * size), np.uint8)
            done = library.ggml_quantize_chunk(
                GGMLQuantizationType[kind], values.ctypes.data, out.ctypes.data, 0, rows, columns, None
            )
            assert done == out.nbytes, f"ggml wrote {done} bytes of {kind}, expected {out.nbytes}"
            made[kind] = out
        return made

    return quantize


def _round(library: ctypes.CDLL, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrix as float16, and that again as float32: llama.cpp rounds so too, and the bytes must be equal."""
    half, values = np.empty(matrix.shape, np.float16), np.empty(matrix.shape, np.float32)
    library.ggml_fp32_to_fp16_row(matrix.ctypes.data, half.ctypes.data, matrix.size)
    library.ggml_fp16_to_fp32_row(half.ctypes.data, values.ctypes.data, matrix.size)
    if not np.isfinite(values).all():
        raise NotFinite
    return half, values


def _load_library() -> ctypes.CDLL:
    folder = os.environ.get("LLAMA_CPP_LIB_PATH") or _installed()
    try:
        library = ctypes.CDLL(str(Path(folder) / LIBRARY))
    except OSError as error:
        raise UserError(
            f"{folder}: no usable {LIBRARY} ({error}); install llama-cpp-python again: `make setup`"
        ) from None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    for convert in (library.ggml_fp32_to_fp16_row, library.ggml_fp16_to_fp32_row):
        convert.argtypes, convert.restype = [pointer, pointer, number], None
    return library


def _installed() -> Path:
    package = importlib.util.find_spec("llama_cpp")  # found, not imported: only one of its libraries is needed
    if package is None or not package.submodule_search_locations:
        raise UserError("llama-cpp-python is not installed: its quantiser is needed; run `make setup`")
    return Path(package.submodule_search_locations[0]) / "lib"
