"""A float32 matrix + block types -> its blocks as bytes, by ggml's own quantiser (it releases the GIL: run it in threads)."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from plumbing.errors import UserError

# float32 (rows, columns), the types' names -> of each type its blocks, uint8 (rows, bytes a row).  Raises NotFinite.
Quantize = Callable[[np.ndarray, Iterable[str]], dict[str, np.ndarray]]
LIBRARY = {"win32": "ggml-base.dll", "darwin": "libggml-base.dylib"}.get(sys.platform, "libggml-base.so")


class NotFinite(ValueError):
    """The matrix holds NaN, infinity, or a value beyond float16's 65504."""


def load_quantizer() -> Quantize:
    """The quantiser of the installed llama-cpp-python.  Raises UserError when that is missing."""
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
            assert done == out.nbytes, f"ggml wrote {done} bytes of {kind}, wanted {out.nbytes}"
            made[kind] = out
        return made

    return quantize


def _round(library: ctypes.CDLL, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As float16, and that in float32: even smaller types go through it in llama.cpp, and so the bytes are equal."""
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
    package = importlib.util.find_spec("llama_cpp")  # found, not imported: only one of its libraries is wanted
    if package is None or not package.submodule_search_locations:
        raise UserError("llama-cpp-python is not installed: its quantiser is needed; run `make setup`")
    return Path(package.submodule_search_locations[0]) / "lib"
