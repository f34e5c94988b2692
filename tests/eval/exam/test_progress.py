"""What a person sees while answers come: a line for each tenth, or a live table on a terminal."""

import sys
from typing import Any

import pytest

from contract.violation import Reading, Violation
from eval.exam.tally import progress
from eval.judge.verdict import Verdict

READING = Reading({}, (), {})
CLEAN = Verdict((), "", True, True, True, True, READING)
LOOSE = Verdict((Violation("", "PREAMBLE", "Sure!", 0, 5),), "PREAMBLE", False, True, True, True, READING)


def test_progress_tells_rate_adherence_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(20) as told:
        for verdict in [CLEAN, CLEAN, None, LOOSE] * 5:
            told(verdict, False)
    lines = capsys.readouterr().err.splitlines()
    assert (
        len(lines) == 10 and lines[-1].startswith("answered 20 of 20, ") and "adherence 66.7 %, 0 s left" in lines[-1]
    )


def test_recorded_answers_are_not_in_the_rate(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    clock = iter([0.0, *[1.0] * 10, *[float(n) for n in range(11, 1001, 10)]])
    monkeypatch.setattr("eval.exam.tally.time.monotonic", lambda: next(clock))
    with progress(20) as told:
        for n in range(14):
            told(CLEAN, n < 10)
    lines = capsys.readouterr().err.splitlines()
    assert "0.1/s" in lines[5] and lines[4].endswith("time left unknown"), lines


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress(4) as told:
        for verdict in (CLEAN, LOOSE, None, CLEAN):
            told(verdict, False)
    shown = capsys.readouterr().err
    assert "4/4" in shown and "answered" not in shown
    last = shown[shown.rindex("so far") :]
    assert "66.7 %" in last and "100.0 %" in last and "PREAMBLE" in last and "no answer" in last
