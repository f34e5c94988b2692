"""Base (+ adapter) -> GGUF files: first each file's layout, then its bytes, hashed while written."""

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
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from contract.base import Base
from models.shape import Shape, check_tensors
from models.tensors import Tensor
from plumbing.errors import UserError
from quantize.layout import Placed, place
from quantize.recipe import RECIPES, choose
from quantize.stream import Part, Quantize, stream
from quantize.vocabulary import Vocabulary
from quantize.weights import Lora

if TYPE_CHECKING:
    from gguf import GGUFWriter

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
class GgufLayout:
    """Everything that one file will hold, known before its first byte is written."""

    type: str  # a key of RECIPES
    shape: Shape
    vocabulary: Vocabulary
    entries: tuple[Entry, ...]

    @property
    def bytes(self) -> int:
        """The file's size, nearly: the tensors with their padding, the vocabulary, the rest of the metadata."""
        return sum(e.size + 32 for e in self.entries) + 40 * len(self.vocabulary.pieces) + 100_000

    def kinds(self) -> dict[str, int]:
        return dict(Counter(entry.kind for entry in self.entries))


def lay_out(
    kind: str, shape: Shape, vocabulary: Vocabulary, base: Mapping[str, Tensor], loras: Mapping[str, Lora]
) -> GgufLayout:
    """Order and type of every tensor.  Raises UserError when the base is not complete."""
    placed = place(shape, base)
    lost = loras.keys() - {p.source for p in placed}
    if lost:
        raise UserError(
            f"the adapter changes {min(lost)}, which the base ties to its embedding; train without that module"
        )
    check_tensors(shape, {p.source: base[p.source].shape for p in placed})
    entries = []
    for p in placed:
        tensor = base[p.source]
        chosen = choose(RECIPES[kind], p.name, tensor.shape, shape.layers, shape.tied)
        entries.append(Entry(p, tensor, loras.get(p.source), chosen, _size(tensor.shape, chosen)))
    return GgufLayout(kind, shape, vocabulary, tuple(entries))


def write_ggufs(
    files: Mapping[Path, GgufLayout], base: Base, title: str, quantize: Quantize, threads: int,
    advance: Callable[[int], None],
) -> dict[str, str]:  # fmt: skip
    """Write all files in one pass over the weights.  Returns file name -> sha256, taken while writing.

    The layouts are of the same base and adapter.  `advance` gets the number of bytes after each write.  Raises UserError
    for a full disk or damaged weights.
    """
    try:
        with contextlib.ExitStack() as stack:
            outs = [_File(stack.enter_context(path.open("wb"))) for path in files]
            for out, layout in zip(outs, files.values(), strict=True):
                out.write(_head(layout, base, title))
            for part, blocks in stream(parts(list(files.values())), quantize, threads):
                for out, kind in zip(outs, part.kinds, strict=True):
                    out.append(part.placed.name, blocks[kind])
                    advance(blocks[kind].nbytes)
            for out in outs:
                out.pad()
    except OSError as error:
        if error.filename:  # a file that could not be opened, named by the error itself
            raise
        folder, needed = next(iter(files)).parent.parent, sum(layout.bytes for layout in files.values())
        raise UserError(
            f"{folder}: cannot write {needed / 1e6:,.1f} MB there: {error.strerror}; nothing was left behind: free "
            "some space or name another --out"
        ) from None
    return {path.name: out.digest.hexdigest() for path, out in zip(files, outs, strict=True)}


def parts(layouts: Sequence[GgufLayout]) -> list[Part]:
    """Each tensor once, with the block types that it has in the layouts."""
    rows = zip(*(layout.entries for layout in layouts), strict=True)
    return [Part(row[0].placed, row[0].tensor, row[0].lora, tuple(entry.kind for entry in row)) for row in rows]


class _File:
    """A GGUF that is being written: tensors begin at aligned offsets, and every byte is hashed."""

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


def _head(layout: GgufLayout, base: Base, title: str) -> bytes:
    """The bytes before the tensors: the metadata, and the tensors' names, shapes, types and offsets."""
    import gguf
    from gguf.gguf_writer import WriterState

    logging.getLogger("gguf").setLevel(logging.ERROR)  # its notes on byte order do not help a user
    writer = gguf.GGUFWriter(None, layout.shape.arch)
    _add_metadata(writer, layout, base, title)
    for entry in layout.entries:
        kind = gguf.GGMLQuantizationType[entry.kind]
        shape = gguf.quant_shape_to_byte_shape(entry.tensor.shape, kind)
        writer.add_tensor_info(entry.placed.name, shape, np.dtype(np.uint8), entry.size, raw_dtype=kind)
    head = io.BytesIO()
    writer.fout, writer.state = [head], WriterState.EMPTY  # the state that it has after opening a file
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    return head.getvalue()


def _add_metadata(writer: GGUFWriter, layout: GgufLayout, base: Base, title: str) -> None:
    """Shape, tokenizer, chat template, licence.  `title` is the model's name in `ollama show` and other tools."""
    import gguf

    shape = layout.shape
    writer.add_type("model")
    writer.add_name(title)
    writer.add_license(base.license)
    writer.add_file_type(gguf.LlamaFileType[RECIPES[layout.type].file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.rms_eps)
    layout.vocabulary.write(writer)
    writer.add_add_bos_token(base.add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(base.add_space_prefix)
    writer.add_chat_template(base.chat_template())


def _size(shape: tuple[int, ...], kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return math.prod(shape) // block * size
