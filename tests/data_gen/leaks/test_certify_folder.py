"""`python -m data_gen.certify DATASET_DIR`: a finished folder again, by any hash seed; a leak ends with exit code 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plumbing.handover import read_manifest, write_manifest
from tests.conftest import ROOT


def run(module: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    variables = os.environ | {"PYTHONUTF8": "1"} | environment
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("certify") / "dataset"
    result = run("data_gen", "terminology", "--count", 1000, "--out", out)
    assert result.returncode == 0, result.stderr
    return out


def test_a_finished_folder_is_certified_again_by_any_hash_seed(folder: Path) -> None:
    result = run("data_gen.certify", folder)
    assert result.returncode == 0 and result.stderr == "" and result.stdout.count("\n") == 1
    assert (
        result.stdout.startswith("leak certificate: clean: 720 concepts' ") and " 1,000 requests and " in result.stdout
    )
    one, other = (run("data_gen.certify", folder, "--json", PYTHONHASHSEED=seed) for seed in ("1", "77"))
    assert one.returncode == 0 and one.stdout == other.stdout and json.loads(one.stdout)["rows"] == 1000


def refused(result: subprocess.CompletedProcess[str], *said: str) -> None:
    assert result.returncode == 1 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert all(text in result.stderr for text in said), result.stderr


def test_a_leak_in_a_finished_folder_ends_with_1(folder: Path, tmp_path: Path) -> None:
    leaking = tmp_path / "leaking"
    leaking.mkdir()
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "concepts.json", "task.toml"):
        (leaking / name).write_bytes((folder / name).read_bytes())
    refused(run("data_gen.certify", leaking), "no manifest.json there")
    settings = read_manifest(folder, "dataset")["settings"]
    write_manifest(leaking, "dataset", {}, settings, {}, started=time.monotonic())
    assert run("data_gen.certify", leaking).returncode == 0
    lines = (leaking / "test.jsonl").read_text(encoding="utf-8").splitlines()
    trained = json.loads((leaking / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    lines[0] = json.dumps(json.loads(lines[0]) | {"request": trained["request"].upper()})
    (leaking / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    refused(run("data_gen.certify", leaking), "changed since it was made: test.jsonl")
    write_manifest(leaking, "dataset", {}, settings, {}, started=time.monotonic())
    planted = json.loads(lines[0])["id"]
    result = run("data_gen.certify", leaking)
    refused(result, "error: leak certificate: ", f"'{trained['id']}' train and '{planted}' test", "same_as")
    assert result.stdout == ""
    result = run("data_gen.certify", leaking, "--json")
    refused(result, planted)
    assert json.loads(result.stdout)["clean"] is False


def test_a_folder_without_its_concepts_gets_one_line(folder: Path, tmp_path: Path) -> None:
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "task.toml"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "concepts.json").write_text('{"train": [1]}')
    write_manifest(tmp_path, "dataset", {}, {}, {}, started=time.monotonic())
    refused(run("data_gen.certify", tmp_path), "concepts.json: expected the groups of each split with their names")
    refused(run("data_gen.certify", tmp_path / "none"), "no manifest.json there")
