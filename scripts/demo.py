"""Three model folders -> registered, checked, measured and compared: the end of `make demo`.

    python -m scripts.demo artifacts/terminology/tiny --data artifacts/terminology/dataset --name medical-mistral:tiny

The untuned base, the tuned model in f16 and in its quantised type answer the same held-out requests.  An Ollama that
answers at OLLAMA_HOST serves all three; without one, llama.cpp answers in this process.  A report of the same weights,
data and backend is used again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from contract.contract import load_contract
from eval.report.overview import example_answer, tabulate_reports
from eval.report.report import read_report
from models.embedded import first_gguf
from models.ollama_address import server_url
from models.ollama_server import Server
from plumbing.errors import UserError, run
from plumbing.handover import MANIFEST, read_manifest, sha256

MODELS = {"base": "model-base", "tuned, f16": "model-f16", "tuned": "model"}  # row of the table -> model folder


def main() -> None:
    args = _parser().parse_args()
    folder, data = Path(args.run), Path(args.data)
    started = time.monotonic()
    server = _server()
    reports = {}
    for row, model in MODELS.items():
        reports[row] = _measure(folder / model, data, args.name if server else None, args.limit)
    if server:
        _stage("quantize.register", folder / "model", args.name, show=True)
        _stage("eval.parity", folder / "model", "--model", args.name, show=True)
    _show(folder, data, reports, args.name, bool(server), time.monotonic() - started)


def _server() -> Server | None:
    """The Ollama that answers; None after one line that says what happens instead."""
    server = Server(server_url(None), timeout=30)
    try:
        server.check()
    except UserError:
        instead = "llama.cpp answers in this process instead (no registration, no parity)"
        print(f"no Ollama answers at {server.url}: {instead}")
        return None
    return server


def _measure(model: Path, data: Path, name: str | None, limit: int) -> Path:
    """The report folder of one model, made unless it is there and up to date.

    With a `name` Ollama serves the model as that name and the folder's ending; a model with an ending is deleted again.
    """
    ending = model.name.removeprefix("model")
    out, gguf = model.parent / f"report{ending}", first_gguf(model)
    if _is_fresh(out, model, gguf, data, "ollama" if name else "llama_cpp", limit):
        return out
    arguments = ("--data", data, "--limit", limit, "--out", out)
    if name is None:
        _stage("eval.adherence", "--gguf", gguf, *arguments)
        return out
    _stage("quantize.register", model, name + ending)
    _stage("eval.adherence", "--model", name + ending, *arguments)
    if ending:
        Server(server_url(None)).delete(name + ending)
    return out


def _is_fresh(out: Path, model: Path, gguf: Path, data: Path, backend: str, limit: int) -> bool:
    try:
        report = read_manifest(out, "report")
    except UserError:
        return False
    settings, weights = report["settings"], read_manifest(model, "model")["outputs"][gguf.name]
    same = (settings.get("backend"), settings.get("weights"), settings.get("limit")) == (backend, weights, limit)
    newer = (out / MANIFEST).stat().st_mtime >= (model / MANIFEST).stat().st_mtime
    return same and newer and report["inputs"].get("test.jsonl") == sha256(data / "test.jsonl")


def _stage(module: str, *arguments: object, show: bool = False) -> None:
    """Run one stage as a user would; if it fails, its error line and exit code end the demo."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, stdout=None if show else subprocess.DEVNULL, check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _show(folder: Path, data: Path, reports: dict[str, Path], name: str, served: bool, seconds: float) -> None:
    print("\n" + tabulate_reports({row: read_report(path) for row, path in reports.items()}))
    spent = {"dataset": data, "adapter": folder / "adapter", "model": folder / "model", "report": reports["tuned"]}
    times = [f"{stage} {read_manifest(path, stage)['seconds']:.0f}" for stage, path in spent.items()]
    print(f"\nseconds for each stage: {', '.join(times)}; this evaluation of three models {seconds:.0f}")
    example = example_answer(reports["tuned"])
    if example:
        advice = "for education only, not medical or other professional advice"
        print(f"\nOne answer (it shows the form; a model this small is often wrong: {advice})")
        print(f"> {example['request']}\n{example['text'].strip()}")
    print(f"\nmodel {first_gguf(folder / 'model')}\nreport {reports['tuned'] / 'report.html'}")
    print(f"loss curve {folder / 'adapter' / 'loss.png'}")
    if served:
        request = load_contract(data / "task.toml").example or "YOUR REQUEST"
        print(f"next: ollama run {name} {json.dumps(request, ensure_ascii=False)}")
    else:
        print(f"next: start Ollama, then: python -m quantize.register {folder / 'model'} {name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo", description="Register, check and measure the demo's models."
    )
    parser.add_argument("run", metavar="RUN_DIR", help="holds adapter/, model/, model-f16/ and model-base/")
    parser.add_argument("--data", required=True, help="the dataset folder")
    parser.add_argument("--name", default="medical-mistral:tiny", help="the model's name in Ollama")
    limit = "held-out requests, first one of each concept (default 74: all concepts)"
    parser.add_argument("--limit", type=int, default=74, help=limit)
    return parser


if __name__ == "__main__":
    run(main)
