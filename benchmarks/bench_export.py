"""A random model of Mistral-7B's shape, exported two ways, each in processes of its own: time, memory, scratch disk.

`python -m benchmarks.bench_export --layers 8 --threads 1,2`: `python -m quantize` against PEFT's merge_and_unload, an f16
GGUF of that checkpoint (by this project's own writer: llama.cpp's converter is in no wheel) and llama_model_quantize.
"The quantiser alone" is the same matrices' sizes through ggml's quantiser and nothing else: no export can be faster.
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
from models.tensors import open_base
from plumbing.errors import UserError, run
from plumbing.handover import new_file, write_manifest
from quantize.blocks import load_quantizer
from quantize.families import read_shape
from quantize.gguf_file import Plan, parts, plan_gguf, write_ggufs
from quantize.recipe import RECIPES
from quantize.stream import Part, cores, split
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
# A module as a process, which at its end says what memory it held at most.
PROCESS = """import atexit, resource, runpy, sys
def tell():
    rest = [f"VmHWM: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB"]  # where the status has no such line
    print(*([line for line in open("/proc/self/status") if line.startswith("VmHWM")] or rest), file=sys.stderr)
atexit.register(tell)
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)"""


@dataclass(frozen=True)
class Measured:
    way: str
    threads: int
    seconds: float  # of the whole process, Python's start included
    worked: float  # seconds of CPU, over its threads: what other load on the machine changes least
    gibibytes: float  # the most memory that the process held (VmHWM)
    scratch: float  # GB on disk at most, beside the inputs and the finished file


def main() -> None:
    args = _parser().parse_args()
    if args.step:
        STEPS[args.step](args.folder, args.type)
        return
    if not Path("/proc/self/status").is_file():
        raise UserError("needs Linux: only there a process says what memory it held at most (VmHWM)")
    with tempfile.TemporaryDirectory(dir=args.folder, ignore_cleanup_errors=True) as name:
        folder, shape = Path(name), SHAPE | {"num_hidden_layers": args.layers}
        print(f"{args.layers} layers of the 7B's shape, random, in {folder}", file=sys.stderr)
        make_model(folder, shape)
        found, equal = compare(folder, args.type, [int(count) for count in args.threads.split(",")], args.ours_only)
    print(table(found))
    if equal:
        print(f"\n{equal[0]} of {equal[1]} tensors byte-identical")
    if args.json:
        with new_file(Path(args.json)) as file:
            told = {"layers": args.layers, "type": args.type, "equal": equal}
            file.write_text(json.dumps(told | {"runs": [asdict(one) for one in found]}, indent=2) + "\n")


def compare(folder: Path, kind: str, threads: list[int], ours_only: bool) -> tuple[list[Measured], list[int]]:
    """Every way by every number of threads; and how many of how many tensors both ways made alike."""
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
    """Run a module on the first `threads` cores.  What it leaves in folder/run, but for `made`, is scratch."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    if len(cores) < threads:
        raise UserError(f"--threads {threads}: this process may run on {len(cores)} cores")
    (folder / "run").mkdir(exist_ok=True)
    started, worked, most = time.perf_counter(), sum(os.times()[2:4]), 0  # of processes that ended
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments], cwd=ROOT, stdout=log, stderr=log,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        while process.poll() is None:
            time.sleep(0.05)
            most = max(most, _bytes(folder / "run"))
        seconds = time.perf_counter() - started
        log.seek(0)
        told = log.read().splitlines()
    if process.returncode:
        raise UserError(f"{way}: exit code {process.returncode}: {told[-2] if len(told) > 1 else 'no word'}")
    peak = next(int(line.split()[1]) for line in reversed(told) if line.startswith("VmHWM"))
    size = made.stat().st_size if made and made.is_file() else 0
    print(f"{way}, {threads} threads: {seconds:.1f} s", file=sys.stderr, flush=True)
    return Measured(way, threads, seconds, sum(os.times()[2:4]) - worked, peak / 2**20, max(0, most - size) / 1e9)


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def table(found: list[Measured]) -> str:
    """Markdown: a row a way and number of threads; the others' steps are one way."""
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
    """What everybody does first: the whole model in memory, and once more on the disk."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload().save_pretrained(folder / "run" / "merged")
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copyfile(folder / "base" / name, folder / "run" / "merged" / name)


def convert(folder: Path, kind: str) -> None:
    plan, out = _plan(folder / "run" / "merged", "f16"), folder / "run" / "f16.gguf"
    write_ggufs({out: plan}, load_base("tiny"), "merged", load_quantizer(), cores(), lambda count: None)


def quantize(folder: Path, kind: str) -> None:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = getattr(llama_cpp, f"LLAMA_FTYPE_{RECIPES[kind].file_type}"), cores()
    names = (str(folder / "run" / name).encode() for name in ("f16.gguf", "theirs.gguf"))
    if llama_cpp.llama_model_quantize(*names, params):
        raise UserError("llama_model_quantize failed")


def alone(folder: Path, kind: str) -> None:
    """ggml's quantiser on as many values as the model has, already in float32 in memory, in as many threads."""
    pieces = [part for tensor in parts([_plan(folder / "base", kind)]) for part in split(tensor)]
    shapes = {part.tensor.shape for part in pieces if part.kinds != ("F32",)}
    values = {size: np.random.default_rng(0).standard_normal(size, np.float32) * 0.02 for size in shapes}
    made = load_quantizer()

    def once(part: Part) -> None:
        if part.tensor.shape in shapes:
            made(values[part.tensor.shape], part.kinds)

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(once, pieces))


def _plan(folder: Path, kind: str) -> Plan:
    shape = read_shape(folder)
    vocabulary = read_vocabulary(folder, load_base("tiny"), shape.vocabulary)
    return plan_gguf(kind, shape, vocabulary, open_base(folder), {})


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
    sizes, loras, rng = _sizes(shape), {}, np.random.default_rng(0)
    _write(base / "model.safetensors", sizes, "BF16", rng)
    linear = {name.removesuffix(".weight"): size for name, size in sizes.items() if "_proj." in name}
    for name, (rows, columns) in linear.items():
        loras[f"base_model.model.{name}.lora_A.weight"] = (RANK, columns)
        loras[f"base_model.model.{name}.lora_B.weight"] = (rows, RANK)
    _write(adapter / "adapter_model.safetensors", loras, "F32", rng)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    config["target_modules"] = sorted({name.rpartition(".")[2] for name in linear})
    for path, told in ((base / "config.json", shape), (adapter / "adapter_config.json", config)):
        path.write_text(json.dumps(told), encoding="utf-8")
    write_manifest(adapter, "adapter", {"base": base_digest(base)}, {"base_folder": str(base.absolute())}, {})
    return adapter


def _sizes(shape: dict[str, Any]) -> Sizes:
    hidden, wide = shape["hidden_size"], shape["intermediate_size"]
    few = hidden // shape["num_attention_heads"] * shape["num_key_value_heads"]
    layer = {
        "self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (few, hidden), "self_attn.v_proj": (few, hidden),
        "self_attn.o_proj": (hidden, hidden), "mlp.gate_proj": (wide, hidden), "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    sizes: Sizes = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (shape["vocab_size"], hidden))
    for number in range(shape["num_hidden_layers"]):
        sizes |= {f"model.layers.{number}.{part}.weight": size for part, size in layer.items()}
    return sizes | {"model.norm.weight": (hidden,)}


def _write(path: Path, tensors: Sizes, dtype: str, rng: np.random.Generator) -> None:
    """A safetensors file of random values, a tensor at a time: the whole would not fit into memory."""
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
    """LoRA weights are multiples of 1/1024: B @ A is exact in whatever order it is summed, so both ways must agree."""
    if dtype == "F32":
        return np.round(values * 20) / np.float32(1024)
    return ((values * np.float32(0.02)).view(np.uint32) >> 16).astype(np.uint16)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_export", description=__doc__)
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
