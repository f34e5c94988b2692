"""scripts.ask: which GGUF of a folder answers, what is said beside the answer, what it says without a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quantize.export import export
from tests.conftest import ROOT


def ask(folder: Path, *question: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.ask", str(folder), *question]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_first_of_several_types_answers_and_its_words_are_no_advice(small_adapter: Path, tmp_path: Path) -> None:
    export(small_adapter, tmp_path / "model", "q8_0,f16")  # a listing has f16 first
    done = ask(tmp_path / "model", "Hypertension?")
    assert (done.returncode, bool(done.stdout.strip())) == (0, True)
    advice = "for education only, not medical or other professional advice"
    assert done.stderr == f"(model.q8_0.gguf wrote this, and it may be wrong: {advice})\n"


def test_without_a_question_the_example_of_the_task_is_asked(small_adapter: Path, tmp_path: Path) -> None:
    export(small_adapter, tmp_path / "model", "q8_0")
    example = ask(tmp_path / "model", "Explain the medical term: Hypertension")
    assert (
        example.stdout.strip()
        and ask(tmp_path / "model", "").stdout == ask(tmp_path / "model").stdout == example.stdout
    )
    task = tmp_path / "model" / "task.toml"
    task.write_text("".join(line for line in task.read_text().splitlines(True) if not line.startswith("example")))
    done = ask(tmp_path / "model")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path / 'model'}: its task names no example; ask a question of your own\n"


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    done = ask(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}: no manifest.json there: not a finished model folder")
