"""`make release`: four checks, one line each, and an exit code that tells the worst of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models.ollama_server import Server
from quantize.register import register
from scripts.release import UNPROVED, WORDS, WORST
from tests.conftest import ROOT
from tests.eval.parity.test_parity import make_model
from tests.finished_dataset import make_terminology


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "dataset"
    make_terminology(folder)
    return folder


def release(data: Path, model: Path, out: Path, host: str, bounds: str) -> tuple[int, list[list[str]]]:
    """The exit code, and name, verdict and text of each line."""
    gate = out.with_name("gate.toml")
    gate.write_text(bounds)
    command = [sys.executable, "-m", "scripts.release", "--data", data, "--model-dir", model, "--model", "noise",
               "--gate", gate, "--out", out, "--host", host]  # fmt: skip
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "", done.stderr
    return done.returncode, [line.split(maxsplit=2) for line in done.stdout.splitlines()]


def test_one_check_that_fails_fails_the_release(ollama: str, small_adapter: Path, data: Path, tmp_path: Path) -> None:
    model = make_model(small_adapter, tmp_path / "model")
    register(model, "noise", Server(ollama))
    code, lines = release(data, model, tmp_path / "report", ollama, "[adherence]\nstrict = 0.5\n")
    told = {name: (verdict, text) for name, verdict, text in lines}
    assert code == 2 and {name: verdict for name, (verdict, _) in told.items()} == {
        "certificate": "pass", "self-test": "pass", "parity": "pass", "gate": "fail", "release": "no"
    }  # fmt: skip
    assert "720 concepts" in told["certificate"][1] and "0 of 7520 faults missed" in told["self-test"][1]
    assert "served as trained" in told["parity"][1] and "below (0 of 1 bounds met)" in told["gate"][1]
    assert told["release"][1] == f"3 of 4 checks pass; {UNPROVED}" and (tmp_path / "report/junit.xml").is_file()


def test_a_check_that_cannot_be_done_is_told_by_its_own_line(small_adapter: Path, data: Path, tmp_path: Path) -> None:
    model = make_model(small_adapter, tmp_path / "model")
    code, lines = release(data, model, tmp_path / "report", "127.0.0.1:1", "[adherence]\nstrict = 0.5\n")
    told = {name: (verdict, text) for name, verdict, text in lines}
    assert code == 1 and [told[name][0] for name in ("certificate", "self-test", "parity", "gate")] == [
        "pass", "pass", "error", "error"
    ]  # fmt: skip
    assert told["parity"][1].startswith("error: no Ollama answers at")


def test_every_code_has_its_place() -> None:
    assert sorted(WORST) == sorted(WORDS)
