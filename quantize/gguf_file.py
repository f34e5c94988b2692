"""Base (+ adapter) -> one GGUF file, tensor by tensor: read, merge, re-order, quantise, write, forget."""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contract.base import Base
from contract.errors import UserError
from quantize.blocks import NotFinite, Quantize
from quantize.families import Placed, Shape, place
from quantize.metadata import add_metadata
from quantize.recipe import RECIPES, choose
from quantize.tensors import Tensor
from quantize.vocabulary import Vocabulary
from quantize.weights import Lora, merge

if TYPE_CHECKING:
    from gguf import GGUFWriter


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
    """Which tensors go in, in which order and type.  Raises UserError when a LoRA would go nowhere."""
    placed = place(shape, base)
    lost = loras.keys() - {p.source for p in placed}
    if lost:
        raise UserError(
            f"the adapter changes {min(lost)}, which the base ties to its embedding; train without that module"
        )
    names = {p.name for p in placed}
    absent = [n for n in ("token_embd.weight", "output_norm.weight") if n not in names]
    if absent or not (shape.tied or "output.weight" in names):
        raise UserError(f"the base lacks {(absent or ['its output matrix (lm_head)'])[0]}; fetch it again")
    entries = []
    for p in placed:
        tensor = base[p.source]
        chosen = choose(RECIPES[kind], p.name, tensor.shape, shape.layers, shape.tied)
        entries.append(Entry(p, tensor, loras.get(p.source), chosen, _size(tensor.shape, chosen)))
    return Plan(kind, shape, vocabulary, tuple(entries))


def write_gguf(
    path: Path, plan: Plan, base: Base, title: str, quantize: Quantize, advance: Callable[[int], None]
) -> None:
    """Write the file; `advance` is told each tensor's bytes.  Raises UserError for a full disk or damaged weights."""
    import gguf

    logging.getLogger("gguf").setLevel(logging.ERROR)  # its notes on byte order are no news to a user
    writer = gguf.GGUFWriter(None, plan.shape.arch)
    add_metadata(writer, plan, base, title)
    for entry in plan.entries:
        kind = gguf.GGMLQuantizationType[entry.kind]
        shape = gguf.quant_shape_to_byte_shape(entry.tensor.shape, kind)
        writer.add_tensor_info(entry.placed.name, shape, np.dtype(np.uint8), entry.size, raw_dtype=kind)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in plan.entries:
            _append(writer, make_blocks(entry, quantize))
            advance(entry.size)
        writer.close()
    except OSError as error:
        if error.filename:  # a file that could not be opened, named by the error itself
            raise
        raise UserError(
            f"{path.parent.parent}: cannot write {plan.bytes / 1e6:,.1f} MB there: {error.strerror}; nothing was left "
            "behind: free some space or name another --out"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # what is still in the buffer does not fit either
            writer.close()


def _append(writer: GGUFWriter, blocks: np.ndarray) -> None:
    """One tensor, from an aligned place on.

    Not by the writer's own write_tensor_data: its `tofile` hides a full disk when the rest fits into C's buffer.
    """
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    file.write(blocks.data)
    writer.write_padding(file, blocks.nbytes)


def make_blocks(entry: Entry, quantize: Quantize) -> np.ndarray:
    """The tensor's bytes as they stand in the GGUF."""
    weight = entry.placed.arrange(merge(entry.tensor, entry.lora))
    try:
        if entry.kind != "F32":
            return quantize(weight, entry.kind)
        if not np.isfinite(weight).all():
            raise NotFinite
        return weight
    except NotFinite:
        cause = "the adapter's training diverged, or the base is damaged" if entry.lora else "the base is damaged"
        raise UserError(
            f"{entry.tensor.name}: holds values that are no numbers or beyond 65504: {cause}; make it again"
        ) from None


def _size(shape: tuple[int, ...], kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size
