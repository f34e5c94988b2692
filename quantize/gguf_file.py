"""Base (+ adapter) -> GGUF files: which tensors go in, in which order and types; then all of it, hashed and written."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from contract.base import Base
from models.tensors import Tensor
from plumbing.errors import UserError
from quantize.blocks import Quantize
from quantize.families import Placed, Shape, check_tensors, place
from quantize.metadata import add_metadata
from quantize.recipe import RECIPES, choose
from quantize.stream import Part, stream
from quantize.vocabulary import Vocabulary
from quantize.weights import Lora

ALIGNMENT = 32  # bytes: GGUF's default


@dataclass(frozen=True)
class Entry:
    """One tensor of the GGUF: what it is made from, its block type, its size there in bytes."""

    placed: Placed
    tensor: Tensor
    lora: Lora | None
    kind: str
    size: int


@dataclass(frozen=True)
class Plan:
    """All that will be written, known before the first byte is."""

    type: str  # a key of RECIPES
    shape: Shape
    vocabulary: Vocabulary
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """About what the file will take: the tensors with their padding, the vocabulary, the rest of the metadata."""
        return sum(e.size + 32 for e in self.entries) + 40 * len(self.vocabulary.pieces) + 100_000

    def kinds(self) -> dict[str, int]:
        return dict(Counter(entry.kind for entry in self.entries))


def plan_gguf(
    kind: str, shape: Shape, vocabulary: Vocabulary, base: Mapping[str, Tensor], loras: Mapping[str, Lora]
) -> Plan:
    """Which tensors go in, in which order and type.  Raises UserError when the base is not whole."""
    placed = place(shape, base)
    lost = loras.keys() - {p.source for p in placed}
    if lost:
        raise UserError(
            f"the adapter changes {min(lost)}, which the base ties to its embedding; train without that module"
        )
    check_tensors(shape, placed, {p.source: base[p.source].shape for p in placed})
    entries = []
    for p in placed:
        tensor = base[p.source]
        chosen = choose(RECIPES[kind], p.name, tensor.shape, shape.layers, shape.tied)
        entries.append(Entry(p, tensor, loras.get(p.source), chosen, _size(tensor.shape, chosen)))
    return Plan(kind, shape, vocabulary, tuple(entries))


def write_ggufs(
    files: Mapping[Path, Plan], base: Base, title: str, quantize: Quantize, threads: int, advance: Callable[[int], None]
) -> dict[str, str]:
    """Write a file a plan, all in one pass over the weights; returns file name -> sha256, taken while writing.

    The plans are of the same base and adapter.  `advance` is told the bytes.  Raises UserError for a full disk or
    damaged weights.
    """
    try:
        with contextlib.ExitStack() as stack:
            outs = [_File(stack.enter_context(path.open("wb"))) for path in files]
            for out, plan in zip(outs, files.values(), strict=True):
                out.write(_head(plan, base, title))
            for part, blocks in stream(parts(list(files.values())), quantize, threads):
                for out, kind in zip(outs, part.kinds, strict=True):
                    out.append(part.placed.name, blocks[kind])
                    advance(blocks[kind].nbytes)
            for out in outs:
                out.pad()
    except OSError as error:
        if error.filename:  # a file that could not be opened, named by the error itself
            raise
        folder, needed = next(iter(files)).parent.parent, sum(plan.bytes for plan in files.values())
        raise UserError(
            f"{folder}: cannot write {needed / 1e6:,.1f} MB there: {error.strerror}; nothing was left behind: free "
            "some space or name another --out"
        ) from None
    return {path.name: out.digest.hexdigest() for path, out in zip(files, outs, strict=True)}


def parts(plans: Sequence[Plan]) -> list[Part]:
    """The plans' tensors, each once, with the block type that each plan wants of it."""
    rows = zip(*(plan.entries for plan in plans), strict=True)
    return [Part(row[0].placed, row[0].tensor, row[0].lora, tuple(entry.kind for entry in row)) for row in rows]


class _File:
    """A GGUF on its way to the disk: tensors begin at aligned places, and every byte is hashed as it passes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size, self.tensor, self.digest = file, 0, "", hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)

    def append(self, tensor: str, blocks: np.ndarray) -> None:
        """The tensor's next rows."""
        if tensor != self.tensor:
            self.pad()
            self.tensor = tensor
        self.write(blocks.reshape(-1).view(np.uint8).data)

    def pad(self) -> None:
        self.write(bytes(-self.size % ALIGNMENT))


def _head(plan: Plan, base: Base, title: str) -> bytes:
    """All that stands before the tensors: the metadata and the tensors' names, shapes, types and places."""
    import gguf
    from gguf.gguf_writer import WriterState

    logging.getLogger("gguf").setLevel(logging.ERROR)  # its notes on byte order are no news to a user
    writer = gguf.GGUFWriter(None, plan.shape.arch)
    add_metadata(writer, plan, base, title)
    for entry in plan.entries:
        kind = gguf.GGMLQuantizationType[entry.kind]
        shape = gguf.quant_shape_to_byte_shape(entry.tensor.shape, kind)
        writer.add_tensor_info(entry.placed.name, shape, np.dtype(np.uint8), entry.size, raw_dtype=kind)
    head = io.BytesIO()
    writer.fout, writer.state = [head], WriterState.EMPTY  # as if it had opened a file of its own
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return head.getvalue()


def _size(shape: tuple[int, ...], kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size
