"""What a teacher's run tells while it works: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_gen.teacher import tally as teacher_tally
from data_gen.teacher.tally import Tally, watching
from tests.conftest import ROOT
from tests.data_gen.teacher.test_teacher_resume import PROCESS
from tests.fake_ollama import FakeOllama, moody


def test_plain_lines_say_how_far_and_how_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    tally = Tally(100, started=clock)
    with watching("teacher m", tally) as show:
        clock += 5
        show()
        clock += 5
        show()
        tally.accepted, tally.rejected, tally.failed = 15, 9, 5
        clock += 10
        show()
        show()
    assert capsys.readouterr().err.splitlines() == [
        "teacher m: 0 of 100 rows, 0 accepted, 0 answers rejected, 0 failed, 0.00 rows/s",
        "teacher m: 20 of 100 rows, 15 accepted, 9 answers rejected, 5 failed, 1.00 rows/s, about 80 s left",
    ]
    assert teacher_tally.PAUSE == 10.0


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    leader, follower = os.openpty()
    with FakeOllama(moody) as fake:
        command = [sys.executable, "-c", PROCESS, str(tmp_path / "journal"), fake.url]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "160"}
        done = subprocess.run(command, cwd=ROOT, stderr=follower, stdout=subprocess.PIPE, timeout=120, env=environment)
    os.close(follower)
    shown = os.read(leader, 1_000_000).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "40/40" in shown and "rows/s" in shown and "accepted" in shown and "answers rejected" in shown, shown
    assert (
        "teacher m: 40 rows, 40 of them asked now: 35 accepted (14 after a refused answer), 5 failed (NUMBER 5)"
        in shown
    )
