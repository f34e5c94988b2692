"""quantize.progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quantize import progress
from tests.conftest import ROOT


def test_progress_in_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with progress.progress("model.gguf", 4_000_000) as advance:
        advance(1_000_000)
        advance(3_000_000)
    assert capsys.readouterr().err == "model.gguf: 1 of 4 MB\nmodel.gguf: 4 of 4 MB\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_progress_on_a_terminal(small_adapter: Path, tmp_path: Path) -> None:
    leader, follower = os.openpty()
    line = [sys.executable, "-m", "quantize", str(small_adapter), "--out", str(tmp_path / "model")]
    done = subprocess.run(
        line, cwd=ROOT, stderr=follower, stdout=subprocess.PIPE, timeout=120, env=os.environ | {"TERM": "xterm"}
    )
    os.close(follower)
    assert done.returncode == 0 and "model.q4_k_m.gguf" in os.read(leader, 100_000).decode()
    os.close(leader)
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["stage"] == "model"
