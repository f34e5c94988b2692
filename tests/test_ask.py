"""scripts.ask: what it says without a model; with one it answers in tests/test_notebook.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_a_folder_without_a_gguf_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.ask", str(tmp_path), "Hypertension?"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr
        == f"error: {tmp_path}: no GGUF there; `make quantize` writes one into artifacts/TASK/PRESET/model\n"
    )
