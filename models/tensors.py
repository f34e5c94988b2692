"""Safetensors files -> the place of each tensor on disk; its values are read later, as float32.

They are read by `fromfile`, not by memory mapping: mapped pages of a 14 GB base would stay in this process' memory.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from models.base_folder import weight_files
from plumbing.errors import UserError, faults_error

BYTES = {"F32": 4, "F16": 2, "BF16": 2}  # per element, by safetensors' dtype
HEADER_LIMIT = 100_000_000  # bytes; safetensors' own limit


@dataclass(frozen=True)
class Tensor:
    """A tensor on disk: only where its values are."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of BYTES
    path: Path
    offset: int  # bytes from the start of the file

    def rows(self, start: int, stop: int) -> Self:
        """Some of its rows, as a tensor on disk."""
        shape = (min(stop, self.shape[0]) - start, *self.shape[1:])
        skipped = start * math.prod(self.shape[1:]) * BYTES[self.dtype]
        return replace(self, shape=shape, offset=self.offset + skipped)

    def read(self) -> np.ndarray:
        """The exact values in float32.  Raises UserError when the file has become shorter since it was opened."""
        kind, size = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.dtype], math.prod(self.shape)
        raw = np.fromfile(self.path, kind, size, offset=self.offset)
        if raw.size != size:
            raise UserError(f"{self.path}: ends before {self.name} does; fetch or make it again")
        raw = raw.reshape(self.shape)
        if self.dtype != "BF16":
            return raw.astype(np.float32, copy=False)
        wide = raw.astype(np.uint32)
        wide <<= 16  # bfloat16 is the upper half of a float32
        return wide.view(np.float32)


def round_to(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 -> the nearest value of `dtype` (ties to even), still held in float32."""
    if dtype == "F32":
        return values
    if dtype == "F16":
        with np.errstate(over="ignore"):  # infinity is refused by the quantiser, with the tensor's name
            return values.astype(np.float16).astype(np.float32)
    values[np.isnan(values)] = np.nan  # rounding would carry some bit patterns of NaN over into a zero
    bits = values.view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)
    bits &= 0xFFFF0000
    return values


def open_base(folder: Path) -> dict[str, Tensor]:
    """All tensors of a base, from one file or from the shards in its index.  Raises UserError with all faults."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return _join(folder, {path: open_file(path) for path in weight_files(folder)})
    shards = _read_index(index)
    others = [path.name for path in weight_files(folder) if path.name not in shards.values()]
    if others:  # transformers would prefer a model.safetensors to the shards, and train on that
        raise UserError(f"{folder}: {others[0]} is not a shard that {index.name} names; keep one copy of the weights")
    files = {name: open_file(folder / name) for name in sorted(set(shards.values()))}
    missing = [f"{name} is not in {file}" for name, file in shards.items() if name not in files[file]]
    if missing:
        raise faults_error(str(index), missing[:3])
    return _join(folder, {folder / name: tensors for name, tensors in files.items()})


def open_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.  Raises UserError when it is damaged or holds other number types."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, HEADER_LIMIT):
                raise ValueError("the header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(path, 8 + length, name, entry) for name, entry in header.items()}
        end = 8 + length
        for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
            if tensor.offset != end:
                raise ValueError(f"{tensor.name} does not begin where the tensor before it ends")
            end += math.prod(tensor.shape) * BYTES[tensor.dtype]
        if end != size:
            raise ValueError(f"{size} bytes long, its header describes {end}")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; fetch the folder again") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or make it again") from None
    return tensors


def _tensor(path: Path, start: int, name: str, entry: dict[str, Any]) -> Tensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in BYTES:
        raise UserError(
            f"{path}: {name} is {dtype}, a quantised or unknown type; expected {', '.join(BYTES)}: "
            "name the 16-bit base with --base DIR"
        )
    if not shape or any(type(number) is not int or number < 0 for number in (*shape, begin, end)) or 0 in shape:
        raise ValueError(f"{name}: a shape {list(shape)} at {begin} to {end}")
    if end - begin != math.prod(shape) * BYTES[dtype]:
        raise ValueError(f"{name}: {end - begin} bytes do not hold {dtype} {list(shape)}")
    return Tensor(name, shape, dtype, path, start + begin)


def _read_index(index: Path) -> dict[str, str]:
    """Tensor name -> its shard's file name, always a plain name: nothing outside the folder is read."""
    try:
        shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        outside = sorted({str(file) for file in shards.values() if not _is_plain(file)})
        if not shards:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{index}: not an index of safetensors shards; fetch the base again") from None
    if outside:
        raise faults_error(str(index), [f"names {file!r}, which is not a file of this folder" for file in outside[:3]])
    return shards


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and not any(c in name for c in "/\\:")


def _join(folder: Path, files: dict[Path, dict[str, Tensor]]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, found in files.items():
        twice = sorted(tensors.keys() & found.keys())
        if twice:
            first = tensors[twice[0]].path.name
            raise UserError(f"{folder}: {twice[0]} is in {first} and in {path.name}; keep one copy of the weights")
        tensors |= found
    return tensors
