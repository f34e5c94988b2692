"""scripts.ask: which GGUF of a folder answers, what is said beside the answer, what it says without a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quantize.export import export
from tests.conftest import ROOT


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.ask", str(folder), "Hypertension?"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_first_of_several_types_answers_and_its_words_are_no_advice(small_adapter: Path, tmp_path: Path) -> None:
    export(small_adapter, tmp_path / "model", "q8_0,f16")  # a listing has f16 first
    done = ask(tmp_path / "model")
    assert (done.returncode, bool(done.stdout.strip())) == (0, True)
    assert done.stderr == "(model.q8_0.gguf said so, and may be wrong: educational, not medical advice)\n"


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    done = ask(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}: no manifest.json there: not a finished model folder")
