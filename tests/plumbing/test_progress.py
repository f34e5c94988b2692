"""plumbing.progress: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plumbing.progress import byte_progress, every, progress
from tests.conftest import ROOT


def test_bytes_in_plain_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with byte_progress("model.gguf", 4_000_000) as advance:
        for now, count in ((104.0, 500_000), (110.0, 500_000), (112.0, 3_000_000)):  # too early, a line, too early
            clock[0] = now
            advance(count)
    assert capsys.readouterr().err == "model.gguf: 1 of 4 MB, 30 s left\n"


def test_a_plain_line_appears_when_it_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    done = 0
    with progress("work", 5, lambda: f"{done} of 5", due=lambda count: count % 2 == 0) as show:
        for done in range(1, 6):
            show(done)
    assert capsys.readouterr().err.splitlines() == ["2 of 5", "4 of 5"]


def test_short_work_prints_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("work", 5, lambda: "a line", every(10.0)) as show:
        show(5)
    assert capsys.readouterr().err == ""


TERMINAL = """
import sys
from rich.text import Text
from plumbing.progress import every, progress
with progress("[work]", 5, lambda: "a plain line", every(0), lambda: "half [done]", lambda: Text("below")) as show:
    print("to stdout")
    show(3)
    show(5)
"""


def on_a_terminal(command: list[str]) -> tuple[str, subprocess.CompletedProcess[str]]:
    """What `command` shows on a terminal that is its stderr."""
    leader, follower = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, stderr=follower, stdout=subprocess.PIPE, timeout=120, env=environment, text=True
    )
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    return shown, done


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_bar_with_its_note_and_what_is_below() -> None:
    shown, done = on_a_terminal([sys.executable, "-c", TERMINAL])
    assert all(text in shown for text in ("[work]", "5/5", "half [done]", "below")) and "a plain line" not in shown
    assert done.stdout == "to stdout\n" and "to stdout" not in shown


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_an_export_shows_a_bar(small_adapter: Path, tmp_path: Path) -> None:
    shown, done = on_a_terminal(
        [sys.executable, "-m", "quantize", str(small_adapter), "--out", str(tmp_path / "model")]
    )
    assert done.returncode == 0 and "model.q4_k_m.gguf" in shown
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["stage"] == "model"
