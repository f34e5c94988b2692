"""`python -m benchmarks.bench_data_gen`: two fresh processes, a row of the table each; a bad call gets one line."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.conftest import ROOT


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.bench_data_gen", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_tenth_and_all_of_the_rows_are_measured() -> None:
    result = run("--rows", 4000)
    assert result.returncode == 0, result.stderr
    heading, small, large, ratio = result.stdout.splitlines()
    assert heading.split()[0] == "rows" and ratio.startswith("10.0 x rows take ")
    for line, rows in ((small, "400"), (large, "4,000")):
        found, compose, certify, speed, peak, verdict = line.split()
        assert found == rows and verdict == "clean" and re.fullmatch(r"[\d,]+", speed)
        assert float(compose) > 0 and float(certify) > 0 and 20 < float(peak) < 1024


def test_a_bad_call_gets_one_line() -> None:
    result = run("--task", "nope")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: 10,000 rows: nope: no such task")
