"""`make demo` in a fresh copy of the tracked files, on the real Ollama: the figures that README promises, and staleness."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contract.contract import load_contract
from eval.report.report import read_report
from plumbing.handover import read_manifest
from tests.conftest import ROOT

RUN = Path("artifacts/terminology/tiny")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows or would add, with this environment's packages."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(lambda name: (ROOT / name).is_file(), listed.stdout.splitlines()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def demo(clone: Path, host: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"} | {
        "OLLAMA_HOST": host,
        "VENV": str(ROOT / ".venv"),
    }
    done = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, env=environment, timeout=1500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def demonstrated(clone: Path, ollama: str) -> Iterator[tuple[Path, str]]:
    yield clone, demo(clone, ollama)


def test_the_demo_reaches_its_figures(demonstrated: tuple[Path, str]) -> None:
    clone, printed = demonstrated
    tuned, plain, base = (read_report(clone / RUN / name) for name in ("report", "report-f16", "report-base"))
    assert tuned.attempted == tuned.judged >= 60 and len(tuned.categories) == 5
    assert tuned.adherence.share is not None and tuned.adherence.share >= 0.95, tuned
    assert base.adherence.share is not None and base.adherence.share <= 0.05, base
    assert tuned.named.share is not None and tuned.named.share >= 0.60, tuned
    assert plain.judged == tuned.judged
    assert "served as trained" in printed and "next: ollama run medical-mistral:tiny" in printed


def test_only_the_demos_own_model_stays_registered(demonstrated: tuple[Path, str], ollama: str) -> None:
    names = {row["name"] for row in httpx.get(f"{ollama}/api/tags").json()["models"]}
    assert {name for name in names if name.startswith("medical-mistral:tiny")} == {"medical-mistral:tiny"}


def test_the_report_can_be_traced_to_the_facts(demonstrated: tuple[Path, str]) -> None:
    clone, _ = demonstrated
    report, model = read_manifest(clone / RUN / "report", "report"), read_manifest(clone / RUN / "model", "model")
    adapter, dataset = (
        read_manifest(clone / RUN / "adapter", "adapter"),
        read_manifest(clone / RUN.parent / "dataset", "dataset"),
    )
    assert report["settings"]["weights"] == model["outputs"]["model.q4_k_m.gguf"]
    assert model["inputs"]["adapter"] == adapter["outputs"]["adapter_model.safetensors"]
    assert adapter["inputs"]["dataset"] == dataset["outputs"]["train.jsonl"]
    assert "abbreviations.jsonl" in dataset["inputs"]


def test_ollama_run_prints_the_four_parts(demonstrated: tuple[Path, str], ollama: str) -> None:
    binary = os.environ.get("OLLAMA_BINARY") or shutil.which("ollama") or _cached()
    environment, contract = os.environ | {"OLLAMA_HOST": ollama}, load_contract("terminology")
    command = [binary, "run", "--nowordwrap", "medical-mistral:tiny", contract.example]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, stdin=subprocess.DEVNULL
    )
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout).strip()
    assert contract.read(text).adheres, (text, contract.read(text).violations)


def _cached() -> str:
    from tests.conftest import _ollama_binary

    return str(_ollama_binary())


def test_a_second_run_does_only_what_is_stale(demonstrated: tuple[Path, str], ollama: str) -> None:
    clone, _ = demonstrated
    stages = ("../dataset", "adapter", "model", "model-f16", "model-base", "report", "report-f16", "report-base")
    before = {name: (clone / RUN / name / "manifest.json").stat().st_mtime_ns for name in stages}
    again = demo(clone, ollama)
    assert {name: (clone / RUN / name / "manifest.json").stat().st_mtime_ns for name in stages} == before
    assert "served as trained" in again


def test_without_ollama_the_demo_ends_on_llama_cpp(demonstrated: tuple[Path, str]) -> None:
    clone, _ = demonstrated
    printed = demo(clone, "http://127.0.0.1:9")
    assert "no Ollama answers at http://127.0.0.1:9" in printed
    report = read_report(clone / RUN / "report")
    assert report.backend == "llama_cpp" and report.adherence.share is not None and report.adherence.share >= 0.95, (
        report
    )
