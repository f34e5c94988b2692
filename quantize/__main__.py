"""Adapter folder + its base -> model folder: GGUFs, Modelfiles, manifest.  `python -m quantize ADAPTER_DIR --out DIR`"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.base import Base, load_base
from contract.contract import Contract, load_contract
from models.base_folder import check_base_folder, find_base_folder, tokenizer_file
from plumbing.errors import UserError, run, unknown_key
from plumbing.handover import (
    MANIFEST,
    Manifest,
    check_outputs,
    check_replaceable,
    new_folder,
    read_manifest,
    sha256,
    write_manifest,
)
from quantize.adapter_config import ADAPTER_WEIGHTS
from quantize.modelfile import fields, modelfiles
from quantize.preflight import beside, check_base, check_disk, check_memory
from quantize.recipe import RECIPES

if TYPE_CHECKING:
    from models.tensors import Tensor
    from quantize.gguf_file import Plan
    from quantize.nf4 import Difference
    from quantize.vocabulary import Vocabulary

DEFAULT = "q4_k_m"
PACKAGES = ("numpy", "gguf", "sentencepiece", "llama-cpp-python")


@dataclass(frozen=True)
class Source:
    """What the model is made from, read and checked."""

    adapter: Path
    manifest: Manifest
    contract: Contract
    base: Base
    folder: Path  # the base's


def main() -> None:
    args = _parser().parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of our threads multiplies its own rows; NumPy comes later
    started = time.monotonic()
    out = Path(args.out)
    plans = export(Path(args.adapter), out, args.type, args.base, args.base_only, args.card, args.onto)
    for plan in plans:
        path = gguf_path(out, plan.type)
        print(f"{path}: {len(plan.entries)} tensors, {path.stat().st_size / 1e6:,.1f} MB")
    for line in _told_of_4_bits(Path(args.adapter), out):
        print(line)
    print(f"in {time.monotonic() - started:.1f} s; next: python -m quantize.register {out} NAME")


def _told_of_4_bits(adapter: Path, out: Path) -> list[str]:
    """What whoever trained on a 4-bit base must know: which base this is, and how to choose."""
    model = read_manifest(out, "model")
    if model["settings"]["base_only"] or not read_manifest(adapter, "adapter")["settings"].get("load_in_4bit"):
        return []
    cure = f"what that changes in the answers: python -m quantize.check {out} --adapter {adapter}"
    if "onto_difference" not in model["counts"]:
        return [f"trained on the 4-bit base, merged onto the 16-bit one (--onto nf4 takes the other); {cure}"]
    changed = model["counts"]["onto_difference"]
    return [
        f"onto the 4-bit base: its linear layers differ from the 16-bit base's by {changed:.2%} (root mean square); {cure}"
    ]


def export(
    adapter: Path,
    out: Path,
    types: str = DEFAULT,
    base_folder: str | None = None,
    base_only: bool = False,
    card: str = "",
    onto: str = "16bit",
) -> list[Plan]:
    """Write the model folder `out`, whole or not at all.  `types`: as the command takes them, the first the default.

    What can be refused is, before the first byte.  Only that it is the adapter's base is proved beside the writing,
    which takes far longer, and before the folder takes its name.
    """
    started = time.monotonic()
    check_replaceable(out, "model")
    if base_only and onto != "16bit":
        raise UserError(f"--onto {onto} is for an adapter; leave --base-only or --onto out")
    source = _open(adapter, base_folder)
    tensors, difference = _base(source, onto)
    plans = _plan(source, tensors, read_types(types), base_only)
    texts = modelfiles(fields(source.contract, source.base, card), [plan.type for plan in plans])
    _preflight(out, plans)
    check_outputs(adapter, source.manifest)
    with new_folder(out, "model") as new:
        proof = beside(check_base, adapter, source.manifest["inputs"].get("base"), source.folder)
        digests = _write(new, plans, source, base_only, proof)
        proof.result()
        for name, text in texts.items():
            (new / name).write_bytes(text.encode())
        for name in ("task.toml", "base.toml"):
            shutil.copyfile(adapter / name, new / name)
        settings = {"type": plans[0].type, "types": [plan.type for plan in plans], "base_only": base_only}
        settings |= {"base_folder": str(source.folder)} | ({"card": card} if card else {})
        counts = {"tensors": len(plans[0].entries), "blocks": {plan.type: plan.kinds() for plan in plans}}
        if difference:
            settings, counts = settings | {"onto": onto}, counts | {"onto_difference": difference.relative()}
        packages = PACKAGES if importlib.util.find_spec("llama_cpp") else PACKAGES[:-1]  # LLAMA_CPP_LIB_PATH will do
        write_manifest(new, "model", _inputs(source, base_only), settings, counts, packages, started, digests)
    return plans


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


def _base(source: Source, onto: str) -> tuple[dict[str, Tensor], Difference | None]:
    """The base's tensors, and how far they are from the 16-bit ones, where they are not those."""
    from models.tensors import open_base
    from quantize.nf4 import four_bit_base

    tensors = open_base(source.folder)
    return four_bit_base(tensors, source.adapter) if onto == "nf4" else (tensors, None)


def _plan(source: Source, tensors: dict[str, Tensor], types: list[str], base_only: bool) -> list[Plan]:
    from quantize.families import read_shape
    from quantize.gguf_file import plan_gguf
    from quantize.weights import open_adapter

    shape = read_shape(source.folder)
    tensors, loras = (tensors, {}) if base_only else open_adapter(source.adapter, tensors)
    vocabulary = _vocabulary(source, shape.vocabulary)
    return [plan_gguf(kind, shape, vocabulary, tensors, loras) for kind in types]


def _vocabulary(source: Source, size: int) -> Vocabulary:
    """What llama.cpp tokenizes by.  A byte-level BPE is proven to give the ids of training first."""
    from models.conversations import CONVERSATIONS
    from quantize.vocabulary import read_vocabulary
    from quantize.vocabulary_bpe import prove_equal_ids, read_bpe_vocabulary

    if source.base.tokenizer == "sentencepiece":
        return read_vocabulary(source.folder, source.base, size)
    vocabulary = read_bpe_vocabulary(source.folder, source.base, size)
    prove_equal_ids(vocabulary, source.folder, source.base, map(source.base.prompt, CONVERSATIONS.values()))
    return vocabulary


def _preflight(out: Path, plans: list[Plan]) -> None:
    from quantize.gguf_file import parts
    from quantize.stream import cores, memory

    check_disk(out, sum(plan.bytes for plan in plans))
    check_memory(memory(parts(plans), cores()), cores())


def _write(new: Path, plans: list[Plan], source: Source, base_only: bool, proof: Future[None]) -> dict[str, str]:
    """The GGUFs' names and sha256."""
    from quantize.blocks import load_quantizer
    from quantize.gguf_file import write_ggufs
    from quantize.progress import progress
    from quantize.stream import cores

    files = {gguf_path(new, plan.type): plan for plan in plans}
    title = f"{source.base.name} untuned" if base_only else f"{source.contract.name} on {source.base.name}"
    with progress(
        " ".join(path.name for path in files), sum(e.size for plan in plans for e in plan.entries)
    ) as advance:

        def written(count: int) -> None:
            if proof.done():
                proof.result()  # another base: no need to go on
            advance(count)

        return write_ggufs(files, source.base, title, load_quantizer(), cores(), written)


def _inputs(source: Source, base_only: bool) -> dict[str, str]:
    inputs = {"base": source.manifest["inputs"]["base"], "tokenizer": sha256(tokenizer_file(source.folder))}
    return inputs if base_only else inputs | {"adapter": source.manifest["outputs"][ADAPTER_WEIGHTS]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize",
        description="Merge an adapter into its base and write quantised GGUFs with their Modelfiles.",
    )
    parser.add_argument("adapter", metavar="ADAPTER_DIR", help="what `python -m finetune` made")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--type", default=DEFAULT, metavar="TYPE[,TYPE...]",
        help=f"how the weights are stored: {', '.join(RECIPES)} (default {DEFAULT}); several are made in one pass",
    )  # fmt: skip
    parser.add_argument("--base", metavar="DIR", help="the base's folder (default: where the adapter was trained)")
    parser.add_argument(
        "--base-only", action="store_true", help="leave the adapter out: the untuned base, to compare with"
    )
    parser.add_argument(
        "--onto", choices=("16bit", "nf4"), default="16bit",
        help="which base an adapter that was trained in 4 bits is merged onto: as it was stored (default) or as it was then",
    )  # fmt: skip
    parser.add_argument("--card", default="", metavar="URL", help="the model card's address, told beside the licence")
    return parser


if __name__ == "__main__":
    run(main)
