"""Time and memory of several ways to tune a model of Mistral-7B's shape on one CUDA GPU.

    python -m benchmarks.bench_finetune --data artifacts/terminology/dataset

The ways are the usual recipe (Unsloth, batch 2 x 4, checkpointing, 4-bit base), TRL + PEFT + bitsandbytes, ours by plan,
and ours as on a T4 (14.7 GiB, fp16).  Each is `python -m finetune` in a separate process.  The weights are random: time and
memory are those of the 7B, and the loss only shows whether the ways compute the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbing.errors import UserError, run
from plumbing.handover import new_file, read_manifest, write_manifest

ROOT = Path(__file__).parent.parent
PARAMETERS = 7_248_023_552
PEAK_FLOPS = {  # dense, 16-bit, from the datasheets
    "H200": 989.5e12, "H100": 989.5e12, "A100": 312e12, "L4": 121e12, "T4": 65e12,
}  # fmt: skip
WAYS = {
    "usual recipe: Unsloth, batch 2 x 4, checkpointing, 4-bit": ["plan=false"],
    "TRL + PEFT + bitsandbytes, the same": ["plan=false", "engine=peft"],
    "ours by plan": [],
    "ours, kernels launched one by one": ["cuda_graphs=false"],
    "ours, the 4-bit base kept": ["load_in_4bit=true"],
    "ours as on a T4: 14.7 GiB, fp16": ["gpu_memory=14.7", "precision=fp16", "load_in_4bit=true"],
}


def main() -> None:
    args = _parser().parse_args()
    names = [name for name in WAYS if not args.only or any(word in name for word in args.only.split(","))]
    if not names:
        raise UserError(f"--only {args.only}: matches none of the ways: {'; '.join(WAYS)}")
    import torch

    if not torch.cuda.is_available():
        raise UserError("needs a CUDA GPU; on a CPU `make demo` shows the tiny preset's time")
    device = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        out = Path(args.out) if args.out else Path(work) / "results.json"
        results = read_results(out)
        data = cut_dataset(Path(args.data), Path(work) / "dataset", args.rows)
        base = Path(args.base) if args.base else make_base(Path(work) / "base", args.tokenizer)
        for name in names:
            if name in {result["way"] for result in results}:
                continue  # measured by a run that was interrupted
            results.append(measure(name, WAYS[name] + args.set, data, base, Path(work) / "adapter", device))
            print(json.dumps(results[-1]), flush=True)
            with new_file(out) as file:
                file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(ways_table(results, device))
        if args.export:
            print("\n" + export(args.export, Path(work), results[-1]))


def read_results(out: Path) -> list[dict[str, Any]]:
    """The results of an interrupted run, without failed ways.  Raises UserError for any other file."""
    try:
        return [one for one in json.loads(out.read_text(encoding="utf-8")) if one["way"] and "failed" not in one]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{out}: not what this bench writes; name another --out") from None


def measure(name: str, settings: Sequence[str], data: Path, base: Path, out: Path, device: str) -> dict[str, Any]:
    """Train once.  Returns figures of the adapter's manifest, the process's seconds, and the share of peak FLOPS."""
    shutil.rmtree(out, ignore_errors=True)
    options = itertools.chain.from_iterable(("--set", s) for s in [f"base_folder={base}", *settings])
    command = [sys.executable, "-m", "finetune", "mistral_7b", "--data", str(data), "--out", str(out), *options]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    seconds, lines = time.monotonic() - started, done.stdout.splitlines() or ["no output"]
    print("".join(f"  | {line}\n" for line in lines if line.startswith(("plan", "memory", "step"))), end="")
    if done.returncode:
        return {"way": name, "failed": lines[-1][:300]}
    manifest = read_manifest(out, "adapter")
    counts, used = manifest["counts"], manifest["settings"]
    tokens = counts["tokens_per_second"] * counts["train_seconds"]
    return {
        "way": name,
        "plan": f"{'4' if used['load_in_4bit'] else '16'}-bit, {used['batch']} x {used['accumulation']}, "
        f"{'checkpointing' if used['checkpointing'] else 'no checkpointing'}"
        f"{', CUDA graphs' if used['cuda_graphs'] else ''}",
        "seconds": counts["train_seconds"],
        "first_step": counts["first_step_seconds"],
        "process_seconds": round(seconds, 1),
        "tokens_per_second": counts["tokens_per_second"],
        "peak_gib": counts["peak_gpu_gib"],
        "planned_gib": counts.get("planned_gpu_gib"),
        "loss": last_epoch_loss(json.loads((out / "loss.json").read_text(encoding="utf-8")), used["epochs"]),
        "flops_used": round(flop_use(tokens, counts["train_seconds"], device), 3),
        "versions": manifest["versions"],
    }


def export(kind: str, work: Path, trained: dict[str, Any]) -> str:
    """Markdown: the seconds of every stage from the dataset to a GGUF.  Exports work/adapter, the last one trained."""
    if not (work / "adapter").is_dir():
        raise UserError("nothing was trained in this run, so there is nothing to export; name another --out")
    started = time.monotonic()
    command = [sys.executable, "-m", "quantize", str(work / "adapter"), "--out", str(work / "model"), "--type", kind]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"quantize: {(done.stderr.strip() or 'no output').splitlines()[-1]}")
    exported = time.monotonic() - started
    size = (work / "model" / f"model.{kind}.gguf").stat().st_size
    stages = {
        "imports, the base's sha256, loading, saving": trained["process_seconds"] - trained["seconds"],
        f"training: {trained['plan']}": trained["seconds"],
        f"export to {kind} by {len(os.sched_getaffinity(0))} cores, {size:,} bytes": exported,
        "from the dataset to the GGUF": trained["process_seconds"] + exported,
    }
    return "\n".join(["| stage | time |", "|---|--:|", *(f"| {name} | {s:.1f} s |" for name, s in stages.items())])


def last_epoch_loss(curve: Sequence[dict[str, float]], epochs: float) -> float:
    """The mean loss of the last epoch's steps, so over every row once.  An entry is the mean since the one before."""
    begin = curve[-1]["step"] * (1 - 1 / epochs)
    spans = [(one["step"] - before, one) for before, one in zip([0, *(c["step"] for c in curve)], curve, strict=False)]
    last = [(span, one["loss"]) for span, one in spans if one["step"] > begin + 0.5]
    return sum(span * loss for span, loss in last) / sum(span for span, _ in last)


def flop_use(tokens: float, seconds: float, device: str) -> float:
    """Share of the device's peak: 4 FLOP a parameter and token (forward, backward to activations; no weight gradients)."""
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in device), float("nan"))
    return 4 * PARAMETERS * tokens / seconds / peak


def ways_table(results: Sequence[dict[str, Any]], device: str) -> str:
    """Markdown.  Times are those of the training loop, relative to the first row."""
    lines = [
        f"One {device}, {time.strftime('%Y-%m-%d')}:",
        "",
        "| way | plan | training | against the first | first step | tokens/s | peak (planned) | FLOP use | loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        if "failed" in r:
            lines.append(f"| {r['way']} | failed: {r['failed']} | | | | | | | |")
            continue
        planned = f" ({r['planned_gib']:.1f})" if r["planned_gib"] else ""
        against = f"{results[0]['seconds'] / r['seconds']:.2f} x" if "seconds" in results[0] else ""
        lines.append(
            f"| {r['way']} | {r['plan']} | {r['seconds']:.1f} s | {against} | {r['first_step']:.1f} s | "
            f"{r['tokens_per_second']:,.0f} | {r['peak_gib']:.1f} GiB{planned} | {r['flops_used']:.0%} | {r['loss']:.3f} |"
        )
    return "\n".join(lines)


def cut_dataset(data: Path, out: Path, rows: int) -> Path:
    """A dataset with only the first `rows` training rows."""
    manifest = read_manifest(data, "dataset")
    shutil.copytree(data, out)
    lines = (data / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:rows]
    (out / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    write_manifest(out, "dataset", manifest["inputs"], manifest["settings"], {"train": len(lines)})
    return out


def make_base(folder: Path, tokenizer: str) -> Path:
    """Write a base of Mistral-7B's shape with random bf16 weights (14.5 GB), made on the GPU, and its tokenizer.model."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM
    from transformers.initialization import no_init_weights

    config = MistralConfig(
        vocab_size=32768, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=32768, rope_theta=1e6, sliding_window=None,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"), no_init_weights():
        model = MistralForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        parameter.data.fill_(1) if parameter.ndim == 1 else parameter.data.normal_(0, 0.02)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS
    model.save_pretrained(folder, max_shard_size="5GB")
    shutil.copyfile(tokenizer or _mistral_tokenizer(), folder / "tokenizer.model")
    shutil.copyfile(ROOT / "finetune/bases/tiny/tokenizer_config.json", folder / "tokenizer_config.json")
    return folder


def _mistral_tokenizer() -> Path:
    try:
        import mistral_common
    except ImportError:
        raise UserError(
            "Mistral's tokenizer is in mistral-common: install it, or name a file with --tokenizer"
        ) from None
    return Path(mistral_common.__file__).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_finetune", description="Time ways to tune a 7B.")
    parser.add_argument("--data", required=True, help="a dataset folder")
    parser.add_argument("--rows", type=int, default=150, help="number of training rows")
    parser.add_argument("--base", help="a base folder of that shape (default: a random one, made for this run)")
    parser.add_argument("--tokenizer", default="", help="Mistral v0.3's tokenizer.model (default: mistral-common's)")
    parser.add_argument("--work", help="where the base and the adapters are put (default: a temporary folder)")
    parser.add_argument("--only", help="words of the ways to run, comma-separated: usual,TRL,plan,T4")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting for every way")
    parser.add_argument("--export", metavar="TYPE", help="also export the last way's adapter and time every stage")
    parser.add_argument("--out", help="write the results as JSON after each way; ways already in it are not run again")
    return parser


if __name__ == "__main__":
    if not os.environ.get("HF_HUB_OFFLINE"):
        os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded: the weights are made here
    run(main)
