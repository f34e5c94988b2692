"""Adapter folder + its base -> model folder: GGUF, Modelfile, manifest.  `python -m quantize ADAPTER_DIR --out DIR`"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contract.base import Base, load_base
from contract.base_folder import base_digest, check_base_folder, find_base_folder
from contract.contract import Contract, load_contract
from contract.errors import UserError, run
from contract.handover import (
    Manifest,
    check_outputs,
    check_replaceable,
    new_folder,
    read_manifest,
    sha256,
    write_manifest,
)
from quantize.recipe import RECIPES

if TYPE_CHECKING:
    from quantize.gguf_file import Plan

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
    started = time.monotonic()
    out = Path(args.out)
    plan = export(Path(args.adapter), out, args.type, args.base, args.base_only)
    size, seconds = gguf_path(out, args.type).stat().st_size, time.monotonic() - started
    print(f"{gguf_path(out, args.type)}: {len(plan.entries)} tensors, {size / 1e6:,.1f} MB, {seconds:.1f} s")
    print(f"next: python -m quantize.register {out} NAME")


def export(
    adapter: Path, out: Path, kind: str = DEFAULT, base_folder: str | None = None, base_only: bool = False
) -> Plan:
    """Write the model folder `out`, whole or not at all.  Everything that can be refused is, before the first byte."""
    from quantize.modelfile import fields, render

    started = time.monotonic()
    check_replaceable(out, "model")
    source = _open(adapter, base_folder)
    modelfile = render(fields(source.contract, source.base), gguf_path(out, kind).name)
    plan = _plan(source, kind, base_only)
    _check_disk(out, plan.bytes)
    _check_digests(source)
    with new_folder(out, "model") as new:
        _write(gguf_path(new, kind), plan, source, base_only)
        (new / "Modelfile").write_bytes(modelfile.encode())
        for name in ("task.toml", "base.toml"):
            shutil.copyfile(adapter / name, new / name)
        settings = {"type": kind, "base_only": base_only, "base_folder": str(source.folder)}
        counts = {"tensors": len(plan.entries), "bytes": gguf_path(new, kind).stat().st_size, "types": plan.kinds()}
        write_manifest(new, "model", _inputs(source, base_only), settings, counts, PACKAGES, started)
    return plan


def gguf_path(folder: Path, kind: str) -> Path:
    return folder / f"model.{kind}.gguf"


def _open(adapter: Path, base_folder: str | None) -> Source:
    manifest = read_manifest(adapter, "adapter")
    base = load_base(adapter / "base.toml")
    trained_on = manifest["settings"].get("base_folder")
    if base_folder is None and trained_on and Path(trained_on).is_dir():
        folder = check_base_folder(Path(trained_on))
    else:
        folder = find_base_folder(base, base_folder)
    return Source(adapter, manifest, load_contract(adapter / "task.toml"), base, folder)


def _plan(source: Source, kind: str, base_only: bool) -> Plan:
    from quantize.families import read_shape
    from quantize.gguf_file import plan_gguf
    from quantize.tensors import open_base
    from quantize.vocabulary import read_vocabulary
    from quantize.weights import open_adapter

    shape = read_shape(source.folder)
    tensors = open_base(source.folder)
    tensors, loras = (tensors, {}) if base_only else open_adapter(source.adapter, tensors)
    return plan_gguf(kind, shape, read_vocabulary(source.folder, source.base, shape.vocabulary), tensors, loras)


def _write(path: Path, plan: Plan, source: Source, base_only: bool) -> None:
    from quantize.blocks import load_quantizer
    from quantize.gguf_file import write_ggufs
    from quantize.progress import progress
    from quantize.stream import cores

    title = f"{source.base.name} untuned" if base_only else f"{source.contract.name} on {source.base.name}"
    with progress(path.name, sum(entry.size for entry in plan.entries)) as advance:
        write_ggufs({path: plan}, source.base, title, load_quantizer(), cores(), advance)


def _inputs(source: Source, base_only: bool) -> dict[str, str]:
    inputs = {"base": source.manifest["inputs"]["base"], "tokenizer": sha256(source.folder / "tokenizer.model")}
    return inputs if base_only else inputs | {"adapter": source.manifest["outputs"]["adapter_model.safetensors"]}


def _check_digests(source: Source) -> None:
    """The adapter is as it was trained, and this is the base that it was trained on."""
    check_outputs(source.adapter, source.manifest)
    print(f"{source.folder}: checking that it is the adapter's base", file=sys.stderr)  # reads 14 GB of a 7B
    found, wanted = base_digest(source.folder), source.manifest["inputs"].get("base")
    if found != wanted:
        raise UserError(
            f"{source.adapter}: was trained on another base than {source.folder} "
            f"(sha256 {str(wanted)[:12]}, found {found[:12]}); name its own with --base DIR, or train again on this one"
        )


def _check_disk(out: Path, needed: int) -> None:
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{out}: needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; free some space or name another --out"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize",
        description="Merge an adapter into its base and write one quantised GGUF with its Modelfile.",
    )
    parser.add_argument("adapter", metavar="ADAPTER_DIR", help="what `python -m finetune` made")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--type", choices=RECIPES, default=DEFAULT, help=f"how the weights are stored (default {DEFAULT})"
    )
    parser.add_argument("--base", metavar="DIR", help="the base's folder (default: where the adapter was trained)")
    parser.add_argument(
        "--base-only", action="store_true", help="leave the adapter out: the untuned base, to compare with"
    )
    return parser


if __name__ == "__main__":
    run(main)
