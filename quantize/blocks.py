"""A float32 matrix + a block type -> its blocks as bytes, by ggml's own quantiser in threads (it releases the GIL)."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from contract.errors import UserError

Quantize = Callable[[np.ndarray, str], np.ndarray]  # float32 (rows, columns), type's name -> uint8 (rows, bytes a row)
LIBRARY = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(sys.platform, "libggml-base.so")
CHUNK = 1 << 20  # elements a task: small beside the matrices of a 7B, so that all threads end together


class NotFinite(ValueError):
    """The matrix holds NaN, infinity, or a value beyond float16's 65504."""


def load_quantizer(threads: int | None = None) -> Quantize:
    """The quantiser of the installed llama-cpp-python.  Raises UserError when that is missing."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    library = _load_library()
    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)

    def quantize(matrix: np.ndarray, kind: str) -> np.ndarray:
        columns = matrix.shape[1]
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        out = np.empty((matrix.shape[0], columns // block * size), np.uint8)
        step = max(1, CHUNK // columns)

        def chunk(start: int) -> None:
            half = _to_half(matrix[start : start + step])
            if kind == "F16":
                out[start : start + step] = half.view(np.uint8)
                return
            rows, target = half.astype(np.float32), out[start : start + step]
            done = library.ggml_quantize_chunk(
                GGMLQuantizationType[kind], rows.ctypes.data, target.ctypes.data, 0, len(rows), columns, None
            )
            assert done == target.nbytes, f"ggml wrote {done} bytes of {kind}, wanted {target.nbytes}"

        list(pool.map(chunk, range(0, len(matrix), step)))
        return out

    return quantize


def _to_half(rows: np.ndarray) -> np.ndarray:
    """Through float16 even for smaller types: that is what llama.cpp's quantiser gets, and so the bytes are equal."""
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(rows).astype(np.float16)
    if not np.isfinite(half).all():
        raise NotFinite
    return half


def _load_library() -> ctypes.CDLL:
    package = importlib.util.find_spec("llama_cpp")  # found, not imported: only one of its libraries is wanted
    if package is None or not package.submodule_search_locations:
        raise UserError("llama-cpp-python is not installed: its quantiser is needed; run `make setup`")
    folder = os.environ.get("LLAMA_CPP_LIB_PATH") or Path(package.submodule_search_locations[0]) / "lib"
    try:
        library = ctypes.CDLL(str(Path(folder) / LIBRARY))
    except OSError as error:
        raise UserError(
            f"{folder}: no usable {LIBRARY} ({error}); install llama-cpp-python again: `make setup`"
        ) from None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library
