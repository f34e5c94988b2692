"""scripts.demo on model folders of several types; on the real ones it runs in tests/test_pipeline.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from plumbing.handover import read_manifest
from quantize.__main__ import export
from tests.conftest import ROOT
from tests.finished_dataset import make_terminology


def test_the_first_of_several_types_is_measured_and_shown(small_adapter: Path, tmp_path: Path) -> None:
    make_terminology(tmp_path / "dataset")
    run = tmp_path / "run"
    shutil.copytree(small_adapter, run / "adapter")
    for name in ("model", "model-f16", "model-base"):
        export(small_adapter, run / name, "q8_0,f16", base_only=name == "model-base")  # a listing has f16 first
    command = [sys.executable, "-m", "scripts.demo", run, "--data", tmp_path / "dataset", "--limit", "1"]
    environment = os.environ | {"OLLAMA_HOST": "127.0.0.1:1"}
    done = subprocess.run([*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        f"model {run / 'model' / 'model.q8_0.gguf'}\n" in done.stdout
        and "not medical or other professional advice" in done.stdout
    )
    for name in ("", "-f16", "-base"):
        model, report = read_manifest(run / f"model{name}", "model"), read_manifest(run / f"report{name}", "report")
        assert report["settings"]["weights"] == model["outputs"]["model.q8_0.gguf"]
