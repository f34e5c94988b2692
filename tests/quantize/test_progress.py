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
    clock = iter([100.0, 104.0, 110.0, 112.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("model.gguf", 4_000_000) as advance:
        for count in (500_000, 500_000, 3_000_000):  # after 4 s nothing is told yet, nor 2 s after a line
            advance(count)
    assert capsys.readouterr().err == "model.gguf: 1 of 4 MB, 30 s left\n"


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
