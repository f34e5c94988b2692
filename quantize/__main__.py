"""Adapter folder + its base -> model folder with GGUFs.  `python -m quantize ADAPTER_DIR --out DIR`"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from plumbing.errors import run
from plumbing.handover import read_manifest
from quantize.recipe import DEFAULT, RECIPES


def main() -> None:
    args = _parser().parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each of our threads multiplies its own rows; NumPy comes later
    from quantize.export import export, gguf_path

    started = time.monotonic()
    out = Path(args.out)
    for layout in export(Path(args.adapter), out, args.type, args.base, args.base_only, args.card, args.onto):
        path = gguf_path(out, layout.type)
        print(f"{path}: {len(layout.entries)} tensors, {path.stat().st_size / 1e6:,.1f} MB")
    _print_four_bit_note(Path(args.adapter), out)
    print(f"in {time.monotonic() - started:.1f} s; next: python -m quantize.register {out} NAME")


def _print_four_bit_note(adapter: Path, out: Path) -> None:
    """For an adapter trained on a 4-bit base: which base the model has now, and how to compare the two."""
    model = read_manifest(out, "model")
    if model["settings"]["base_only"] or not read_manifest(adapter, "adapter")["settings"].get("load_in_4bit"):
        return
    note = "trained on the 4-bit base, merged onto the 16-bit one (--onto nf4 takes the other)"
    if "onto_difference" in model["counts"]:
        changed = model["counts"]["onto_difference"]
        note = f"onto the 4-bit base: its linear layers differ from the 16-bit base's by {changed:.2%}"
        note += " (root mean square)"
    print(f"{note}; what that changes in the answers: python -m eval.attribute {out} --adapter {adapter}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m quantize",
        description="Merge an adapter into its base and write quantised GGUFs with their Modelfiles.",
    )
    parser.add_argument("adapter", metavar="ADAPTER_DIR", help="the folder that `python -m finetune` wrote")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--type", default=DEFAULT, metavar="TYPE[,TYPE...]",
        help=f"how the weights are stored: {', '.join(RECIPES)} (default {DEFAULT}); several are made in one pass",
    )  # fmt: skip
    parser.add_argument("--base", metavar="DIR", help="the base's folder (default: where the adapter was trained)")
    parser.add_argument(
        "--base-only", action="store_true", help="leave the adapter out: the untuned base, for comparison"
    )
    parser.add_argument(
        "--onto", choices=("16bit", "nf4"), default="16bit",
        help="for an adapter trained in 4 bits: merge it onto the base's 16-bit weights (default) or its 4-bit ones",
    )  # fmt: skip
    parser.add_argument("--card", default="", metavar="URL", help="the model card's address, added to the licence text")
    return parser


if __name__ == "__main__":
    run(main)
