"""Adapter folder + its base -> model folder, complete or not at all: GGUFs, Modelfiles, manifest."""

from __future__ import annotations

import importlib.util
import shutil
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from contract.base import Base, load_base
from contract.contract import Contract, load_contract
from models.base_folder import base_digest, check_base_folder, find_base_folder, tokenizer_file
from models.conversations import CONVERSATIONS
from models.nf4 import four_bit_base
from models.shape import read_shape
from models.tensors import open_base
from plumbing.errors import UserError, unknown_key
from plumbing.handover import (
    MANIFEST,
    Manifest,
    check_disk,
    check_outputs,
    check_replaceable,
    new_folder,
    read_manifest,
    sha256,
    write_manifest,
)
from plumbing.progress import byte_progress
from quantize.adapter_config import ADAPTER_WEIGHTS
from quantize.gguf_file import GgufLayout, lay_out, parts, write_ggufs
from quantize.modelfile import fields, modelfiles
from quantize.preflight import check_memory
from quantize.recipe import DEFAULT, RECIPES
from quantize.stream import cores, load_quantizer, memory
from quantize.vocabulary import Vocabulary, read_vocabulary
from quantize.vocabulary_bpe import prove_equal_ids, read_bpe_vocabulary
from quantize.weights import open_adapter

PACKAGES = ("numpy", "gguf", "sentencepiece", "llama-cpp-python")


@dataclass(frozen=True)
class Source:
    """What the model is made from, read and checked."""

    adapter: Path
    manifest: Manifest
    contract: Contract
    base: Base
    folder: Path  # the base's


def export(
    adapter: Path, out: Path, types: str = DEFAULT, base_folder: str | None = None, base_only: bool = False, card: str = "",
    onto: str = "16bit",
) -> list[GgufLayout]:  # fmt: skip
    """Write the model folder `out`, complete or not at all.  `types` is as in --type: the first is the default.

    Everything is checked before the first byte is written, except one thing: whether the base is the adapter's own.
    Hashing a base takes long, so that check runs beside the writing and ends before the folder gets its name.
    """
    started = time.monotonic()
    check_replaceable(out, "model")
    if base_only and onto != "16bit":
        raise UserError(f"--onto {onto} is for an adapter; leave --base-only or --onto out")
    source, kinds = _open(adapter, base_folder), read_types(types)
    base, shape = open_base(source.folder), read_shape(source.folder)
    base, difference = four_bit_base(base, adapter) if onto == "nf4" else (base, None)
    base, loras = (base, {}) if base_only else open_adapter(adapter, base)
    vocabulary = _read_vocabulary(source, shape.vocabulary)
    layouts = [lay_out(kind, shape, vocabulary, base, loras) for kind in kinds]
    texts = modelfiles(fields(source.contract, source.base, card), kinds)
    check_disk(out, sum(layout.bytes for layout in layouts))
    check_memory(memory(parts(layouts), cores()), cores())
    check_outputs(adapter, source.manifest)
    with new_folder(out, "model") as new:
        proof = start_check(source)
        digests = _write(new, layouts, source, base_only, proof)
        proof.result()
        for name, text in texts.items():
            (new / name).write_bytes(text.encode())
        for name in ("task.toml", "base.toml"):
            shutil.copyfile(adapter / name, new / name)
        settings = {"type": kinds[0], "types": kinds, "base_only": base_only, "base_folder": str(source.folder)}
        settings |= {"card": card} if card else {}
        counts = {"tensors": len(layouts[0].entries), "blocks": {layout.type: layout.kinds() for layout in layouts}}
        if difference:
            settings, counts = settings | {"onto": onto}, counts | {"onto_difference": difference.relative()}
        packages = PACKAGES if importlib.util.find_spec("llama_cpp") else PACKAGES[:-1]  # LLAMA_CPP_LIB_PATH is enough
        write_manifest(new, "model", _inputs(source, base_only), settings, counts, packages, started, digests)
    return layouts


def _read_vocabulary(source: Source, size: int) -> Vocabulary:
    """What llama.cpp tokenizes by.  For a byte-level BPE, equal token ids are proven first."""
    if source.base.tokenizer == "sentencepiece":
        return read_vocabulary(source.folder, source.base, size)
    vocabulary = read_bpe_vocabulary(source.folder, source.base, size)
    prove_equal_ids(vocabulary, source.folder, source.base, map(source.base.prompt, CONVERSATIONS.values()))
    return vocabulary


def read_types(text: str) -> list[str]:
    """
    >>> read_types("q4_k_m, q8_0,q4_k_m")
    ['q4_k_m', 'q8_0']
    """
    types = list(dict.fromkeys(part.strip() for part in text.split(",")))
    unknown = [kind for kind in types if kind not in RECIPES]
    if unknown:
        raise UserError(f"--type: {unknown_key(unknown[0], RECIPES).replace('key', 'type')}; join several by commas")
    return types


def gguf_path(folder: Path, kind: str) -> Path:
    return folder / f"model.{kind}.gguf"


def start_check(source: Source) -> Future[None]:
    """Run the check in a daemon thread; only a caller of `.result()` waits for it.

    So an export that fails or is stopped ends at once, although 14 GB may still be unread.
    """
    proof: Future[None] = Future()

    def run() -> None:
        try:
            proof.set_result(check_same_base(source))
        except BaseException as error:
            proof.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return proof


def check_same_base(source: Source) -> None:
    """Raises UserError when the base's files are not those that the adapter was trained on.  Reads every byte."""
    expected, found = source.manifest["inputs"].get("base"), base_digest(source.folder)
    if found != expected:
        raise UserError(
            f"{source.adapter}: was trained on another base than {source.folder} (sha256 {str(expected)[:12]}, found "
            f"{found[:12]}); name its own with --base DIR, or train again on this one"
        )


def _open(adapter: Path, base_folder: str | None) -> Source:
    manifest = read_manifest(adapter, "adapter")
    base = load_base(adapter / "base.toml")
    if ADAPTER_WEIGHTS not in manifest["outputs"]:
        raise UserError(f"{adapter}: its {MANIFEST} names no {ADAPTER_WEIGHTS}: not a finished adapter; train it again")
    trained_on = manifest["settings"].get("base_folder")
    if base_folder is None and isinstance(trained_on, str) and Path(trained_on).is_dir():
        folder = check_base_folder(Path(trained_on), base)
    else:
        folder = find_base_folder(base, base_folder)
    return Source(adapter, manifest, load_contract(adapter / "task.toml"), base, folder)


def _write(
    new: Path, layouts: list[GgufLayout], source: Source, base_only: bool, proof: Future[None]
) -> dict[str, str]:
    """Write the GGUFs.  Returns file name -> sha256."""
    files = {gguf_path(new, layout.type): layout for layout in layouts}
    title = f"{source.base.name} untuned" if base_only else f"{source.contract.name} on {source.base.name}"
    size = sum(entry.size for layout in layouts for entry in layout.entries)
    with byte_progress(" ".join(path.name for path in files), size) as advance:

        def written(count: int) -> None:
            if proof.done():
                proof.result()  # another base: stop here
            advance(count)

        return write_ggufs(files, source.base, title, load_quantizer(), cores(), written)


def _inputs(source: Source, base_only: bool) -> dict[str, str]:
    inputs = {"base": source.manifest["inputs"]["base"], "tokenizer": sha256(tokenizer_file(source.folder))}
    return inputs if base_only else inputs | {"adapter": source.manifest["outputs"][ADAPTER_WEIGHTS]}
