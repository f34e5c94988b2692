"""benchmarks.bench_export on a very small model: both ways run, are measured, and make the same tensors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bench_export import SHAPE, Measured, compare, make_model, same_tensors, timing_table
from quantize.export import export
from tests.conftest import ROOT

SMALL = SHAPE | {
    "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 4352, "max_position_embeddings": 1024,
}  # fmt: skip


def test_both_ways_make_the_same_tensors_and_every_process_is_measured(tmp_path: Path) -> None:
    make_model(tmp_path, SMALL)
    found, equal = compare(tmp_path, "q4_k_m", [1], ours_only=False)
    assert equal == [21, 21]
    by_way = {one.way: one for one in found}
    assert list(by_way) == ["quantiser alone", "ours", "merge", "convert", "quantize"]
    assert all(
        0.03 < one.gibibytes < 4 and one.seconds > 0.1 and one.worked > 0.1 and one.threads == 1 for one in found
    )
    assert by_way["ours"].gibibytes < by_way["merge"].gibibytes / 2
    merged = (SMALL["vocab_size"] * 256 * 2 + 2 * (256 * (3 * 256 + 3 * 512))) * 2 / 1e9
    assert by_way["ours"].scratch < 0.1 * merged < 1.9 * merged < by_way["quantize"].scratch  # merged, and its f16
    assert not (tmp_path / "run").exists()


def test_a_tensor_that_differs_is_counted(tmp_path: Path) -> None:
    adapter = make_model(tmp_path, SMALL)
    export(adapter, tmp_path / "tuned", "q8_0")
    export(adapter, tmp_path / "untuned", "q8_0", base_only=True)
    assert same_tensors(*(tmp_path / name / "model.q8_0.gguf" for name in ("tuned", "untuned"))) == [7, 21]


def test_the_table_adds_the_steps_up() -> None:
    merged, converted = Measured("merge", 2, 10, 12, 4.5, 4.0), Measured("convert", 2, 5.5, 6.5, 0.2, 8.0)
    steps = [merged, converted, Measured("quantize", 2, 60, 115, 1, 8)]
    text = timing_table([Measured("ours", 2, 50, 97, 0.25, 0), *steps])
    assert text.splitlines()[2:] == [
        "| ours | 2 | 50.0 | 97.0 | 0.25 GiB | 0.0 GB |",
        "| merge + convert + quantize (10.0 + 5.5 + 60.0 s) | 2 | 75.5 | 133.5 | 4.50 GiB | 8.0 GB |",
    ]


def test_more_cores_than_there_are_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = [sys.executable, "-m", "benchmarks.bench_export", "--layers", "0", "--ours-only", "--threads", "4096"]
    done = subprocess.run([*line, "--folder", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "error: --threads 4096: this process may run on" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_what_it_printed(tmp_path: Path) -> None:
    """Of the 7B's shape without its layers: its two tables, 268 M values, are still more than a test should draw."""
    folder, told = tmp_path / "work", tmp_path / "told.json"
    folder.mkdir()
    code = "from benchmarks import bench_export as b; import sys; b.SHAPE |= {'vocab_size': 4352, 'hidden_size': 256}; b.main()"
    line = [sys.executable, "-c", code, "--layers", "1", "--threads", "1", "--ours-only", "--type", "q8_0"]
    done = subprocess.run(
        [*line, "--folder", folder, "--json", told], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(told.read_text())["runs"]
    assert [run["way"] for run in runs] == ["quantiser alone", "ours"]
    assert f"| ours | 1 | {runs[1]['seconds']:.1f} |" in done.stdout and list(folder.iterdir()) == []
