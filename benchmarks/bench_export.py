"""Time, memory and scratch disk of two ways to export a random model of Mistral-7B's shape.

    python -m benchmarks.bench_export --layers 8 --threads 1,2

One way is `python -m quantize`.  The other is PEFT's merge_and_unload, an f16 GGUF of that checkpoint, and
llama_model_quantize.  (This project's own writer makes the f16 GGUF, because no wheel contains llama.cpp's converter.)
"The quantiser alone" sends matrices of the same sizes through ggml's quantiser and does nothing else.  No export can be
faster.  Each way runs in separate processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.base import load_base
from models.base_folder import base_digest
from models.shape import read_shape
from models.tensors import open_base
from plumbing.errors import UserError, run
from plumbing.handover import new_file, write_manifest
from quantize.gguf_file import GgufLayout, lay_out, parts, write_ggufs
from quantize.recipe import RECIPES
from quantize.stream import Part, cores, load_quantizer, split
from quantize.vocabulary import read_vocabulary

ROOT = Path(__file__).parent.parent
SHAPE = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32768, "max_position_embeddings": 32768, "rms_norm_eps": 1e-5,
    "rope_theta": 1e6, "tie_word_embeddings": False, "sliding_window": None, "hidden_act": "silu",
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "dtype": "bfloat16",
}  # fmt: skip
RANK = 32
Sizes = dict[str, tuple[int, ...]]  # a tensor's name -> its shape
THEIRS = ("merge", "convert", "quantize")
# Runs a module, and at its end prints the most memory that the process held.
PROCESS = """import atexit, resource, runpy, sys
def report():
    rest = [f"VmHWM: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB"]  # where the status has no such line
    print(*([line for line in open("/proc/self/status") if line.startswith("VmHWM")] or rest), file=sys.stderr)
atexit.register(report)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)"""


@dataclass(frozen=True)
class Measured:
    way: str
    threads: int
    seconds: float  # of the whole process, Python's start included
    worked: float  # seconds of CPU, summed over its threads: other load on the machine changes it least
    gibibytes: float  # the most memory that the process held (VmHWM)
    scratch: float  # GB on disk at most, besides the inputs and the finished file


def main() -> None:
    args = _parser().parse_args()
    if args.step:
        STEPS[args.step](args.folder, args.type)
        return
    if not Path("/proc/self/status").is_file():
        raise UserError("needs Linux: only there a process reports the most memory that it held (VmHWM)")
    threads = [int(count) for count in args.threads.split(",")]
    if max(threads) > cores():
        raise UserError(f"--threads {max(threads)}: this process may run on {cores()} cores")
    with tempfile.TemporaryDirectory(dir=args.folder, ignore_cleanup_errors=True) as name:
        folder, shape = Path(name), SHAPE | {"num_hidden_layers": args.layers}
        print(f"{args.layers} layers of the 7B's shape, random, in {folder}", file=sys.stderr)
        make_model(folder, shape)
        found, equal = compare(folder, args.type, threads, args.ours_only)
    print(timing_table(found))
    if equal:
        print(f"\n{equal[0]} of {equal[1]} tensors byte-identical")
    if args.json:
        with new_file(Path(args.json)) as file:
            settings = {"layers": args.layers, "type": args.type, "equal": equal}
            file.write_text(json.dumps(settings | {"runs": [asdict(one) for one in found]}, indent=2) + "\n")


def compare(folder: Path, kind: str, threads: list[int], ours_only: bool) -> tuple[list[Measured], list[int]]:
    """Measure every way with every number of threads.  Also counts the equal tensors, and all tensors."""
    found, equal = [], []
    own = ["benchmarks.bench_export", "--folder", str(folder), "--type", kind, "--step"]
    for count in threads:
        found.append(measure("quantiser alone", [*own, "alone"], folder, count))
        arguments = ["quantize", str(folder / "adapter"), "--out", str(folder / "run" / "ours"), "--type", kind]
        found.append(measure("ours", arguments, folder, count, folder / "run" / "ours" / f"model.{kind}.gguf"))
        if not ours_only:
            (folder / "run" / "ours" / f"model.{kind}.gguf").rename(folder / "ours.gguf")
            shutil.rmtree(folder / "run")
            for step in THEIRS:
                found.append(measure(step, [*own, step], folder, count, folder / "run" / "theirs.gguf"))
            equal = same_tensors(folder / "ours.gguf", folder / "run" / "theirs.gguf")
        shutil.rmtree(folder / "run")
    return found, equal


def measure(way: str, arguments: list[str], folder: Path, threads: int, made: Path | None = None) -> Measured:
    """Run a module on the first `threads` cores.  What it leaves in folder/run, except `made`, is scratch."""
    used = sorted(os.sched_getaffinity(0))[:threads]
    (folder / "run").mkdir(exist_ok=True)
    started, worked, most = time.perf_counter(), sum(os.times()[2:4]), 0  # of processes that ended
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments], cwd=ROOT, stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, used),
        )  # fmt: skip
        while process.poll() is None:
            time.sleep(0.05)
            most = max(most, _bytes(folder / "run"))
        seconds = time.perf_counter() - started
        log.seek(0)
        lines = log.read().splitlines()
    if process.returncode:
        raise UserError(f"{way}: exit code {process.returncode}: {lines[-2] if len(lines) > 1 else 'no output'}")
    peak = next(int(line.split()[1]) for line in reversed(lines) if line.startswith("VmHWM"))
    size = made.stat().st_size if made and made.is_file() else 0
    print(f"{way}, {threads} threads: {seconds:.1f} s", file=sys.stderr, flush=True)
    return Measured(way, threads, seconds, sum(os.times()[2:4]) - worked, peak / 2**20, max(0, most - size) / 1e9)


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def timing_table(found: list[Measured]) -> str:
    """Markdown: one row for each way and number of threads; the other way's steps are added up."""
    lines = ["| way | threads | seconds | CPU seconds | peak RSS | scratch disk |", "|---|--:|--:|--:|--:|--:|"]
    for count in dict.fromkeys(one.threads for one in found):
        steps = [one for one in found if one.threads == count and one.way in THEIRS]
        rows = [one for one in found if one.threads == count and one not in steps]
        if steps:
            how = "merge + convert + quantize (" + " + ".join(f"{one.seconds:.1f}" for one in steps) + " s)"
            seconds, worked = sum(one.seconds for one in steps), sum(one.worked for one in steps)
            most, scratch = max(one.gibibytes for one in steps), max(one.scratch for one in steps)
            rows.append(Measured(how, count, seconds, worked, most, scratch))
        lines += [
            f"| {r.way} | {count} | {r.seconds:.1f} | {r.worked:.1f} | {r.gibibytes:.2f} GiB | {r.scratch:.1f} GB |"
            for r in rows
        ]
    return "\n".join(lines)


def merge(folder: Path, kind: str) -> None:
    """The usual first step: the whole model in memory, and again on the disk."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload().save_pretrained(folder / "run" / "merged")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(folder / "base" / name, folder / "run" / "merged" / name)


def convert(folder: Path, kind: str) -> None:
    layout, out = _lay_out(folder / "run" / "merged", "f16"), folder / "run" / "f16.gguf"
    write_ggufs({out: layout}, load_base("tiny"), "merged", load_quantizer(), cores(), lambda count: None)


def quantize(folder: Path, kind: str) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_{RECIPES[kind].file_type}"), cores()
    names = (str(folder / "run" / name).encode() for name in ("f16.gguf", "theirs.gguf"))
    if llama_cpp.llama_model_quantize(*names, params):
        raise UserError("llama_model_quantize failed")


def alone(folder: Path, kind: str) -> None:
    """ggml's quantiser on as many values as the model has, already in float32 in memory, in as many threads."""
    pieces = [part for tensor in parts([_lay_out(folder / "base", kind)]) for part in split(tensor)]
    shapes = {part.tensor.shape for part in pieces if part.kinds != ("F32",)}
    values = {size: np.random.default_rng(0).standard_normal(size, np.float32) * 0.02 for size in shapes}
    made = load_quantizer()

    def once(part: Part) -> None:
        if part.tensor.shape in shapes:
            made(values[part.tensor.shape], part.kinds)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(once, pieces))


def _lay_out(folder: Path, kind: str) -> GgufLayout:
    shape = read_shape(folder)
    vocabulary = read_vocabulary(folder, load_base("tiny"), shape.vocabulary)
    return lay_out(kind, shape, vocabulary, open_base(folder), {})


STEPS = {"merge": merge, "convert": convert, "quantize": quantize, "alone": alone}


def same_tensors(one: Path, other: Path) -> list[int]:
    """How many tensors have the same type and bytes in both files, and how many there are."""
    from gguf import GGUFReader

    theirs = {t.name: t for t in GGUFReader(other).tensors}
    ours = GGUFReader(one).tensors
    equal = [
        t for t in ours if t.tensor_type == theirs[t.name].tensor_type and np.array_equal(t.data, theirs[t.name].data)
    ]
    return [len(equal), len(ours)]


def make_model(folder: Path, shape: dict[str, Any]) -> Path:
    """A base of random bfloat16 weights and a LoRA on all its linear layers; returns the adapter's folder."""
    base, adapter = folder / "base", folder / "adapter"
    for made in (base, adapter):
        made.mkdir(parents=True)
    for source in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(ROOT / "finetune/bases/tiny" / source, base / source)
    for source, copy in (("tasks/terminology.toml", "task.toml"), ("bases/tiny.toml", "base.toml")):
        shutil.copyfile(ROOT / "contract" / source, adapter / copy)
    (base / "config.json").write_text(json.dumps(shape), encoding="utf-8")
    sizes, loras, rng = read_shape(base).tensors(), {}, np.random.default_rng(0)
    _write(base / "model.safetensors", sizes, "BF16", rng)
    linear = {name.removesuffix(".weight"): size for name, size in sizes.items() if "_proj." in name}
    for name, (rows, columns) in linear.items():
        loras[f"base_model.model.{name}.lora_A.weight"] = (RANK, columns)
        loras[f"base_model.model.{name}.lora_B.weight"] = (rows, RANK)
    _write(adapter / "adapter_model.safetensors", loras, "F32", rng)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    config["target_modules"] = sorted({name.rpartition(".")[2] for name in linear})
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    write_manifest(adapter, "adapter", {"base": base_digest(base)}, {"base_folder": str(base.absolute())}, {})
    return adapter


def _write(path: Path, tensors: Sizes, dtype: str, rng: np.random.Generator) -> None:
    """A safetensors file of random values, one tensor at a time: all of them would not fit into memory."""
    header, end = {}, 0
    for name, size in tensors.items():
        start, end = end, end + math.prod(size) * {"F32": 4, "BF16": 2}[dtype]
        header[name] = {"dtype": dtype, "shape": size, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for size in tensors.values():
            file.write(_draw(rng.standard_normal(size, np.float32), dtype).data)


def _draw(values: np.ndarray, dtype: str) -> np.ndarray:
    """LoRA weights are multiples of 1/1024, so B @ A is exact in any order of summation and both ways must agree."""
    if dtype == "F32":
        return np.round(values * 20) / np.float32(1024)
    return ((values * np.float32(0.02)).view(np.uint32) >> 16).astype(np.uint16)


def _parser() -> argparse.ArgumentParser:
    about = "Time two ways to export a random model of Mistral-7B's shape."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_export", description=about)
    parser.add_argument(
        "--layers", type=int, default=8, metavar="N", help="of the 7B's 32 (default 8: 4 GB of weights)"
    )
    parser.add_argument("--threads", default="1,2", metavar="N[,N...]", help="cores to run on (default 1,2)")
    parser.add_argument("--type", default="q4_k_m", help="of the finished file (default q4_k_m)")
    parser.add_argument("--ours-only", action="store_true", help="leave the other way out: no torch, no llama_cpp")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to work (default: the temporary folder)")
    parser.add_argument("--json", metavar="FILE", help="write every figure there too")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    run(main)
