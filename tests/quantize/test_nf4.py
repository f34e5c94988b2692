"""`python -m quantize --onto nf4`: the export onto the values of a 4-bit base, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.nf4 import four_bit_base
from plumbing.errors import UserError
from plumbing.handover import read_manifest, write_manifest
from quantize.export import export
from tests.conftest import ROOT, make_small_adapter


def adapter_of(small_base: Path, folder: Path, **settings: Any) -> Path:
    make_small_adapter(small_base, folder)
    old = read_manifest(folder, "adapter")
    write_manifest(folder, "adapter", old["inputs"], old["settings"] | settings, {})
    return folder


@pytest.mark.parametrize("engine", ["peft", "unsloth"])
def test_an_export_onto_the_4_bit_base_records_the_difference(small_base: Path, tmp_path: Path, engine: str) -> None:
    adapter = adapter_of(small_base, tmp_path / "adapter", load_in_4bit=True, engine=engine)
    command = ["quantize", adapter, "--out", tmp_path / "model", "--type", "f16", "--onto", "nf4"]
    done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert "onto the 4-bit base: its linear layers differ from the 16-bit base's by 9." in done.stdout, done.stderr
    manifest = read_manifest(tmp_path / "model", "model")
    assert manifest["settings"]["onto"] == "nf4" and 0.08 < manifest["counts"]["onto_difference"] < 0.1


def test_whoever_trained_in_4_bits_is_told_onto_which_base_it_went(small_base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(small_base, tmp_path / "adapter", load_in_4bit=True, engine="peft")
    for options, told in (
        ([], "merged onto the 16-bit one (--onto nf4 takes the other); what that changes in the answers: python -m"),
        (["--base-only"], ""),
    ):
        command = ["quantize", adapter, "--out", tmp_path / "model", "--type", "f16", *options]
        done = subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and told in done.stdout, done.stderr
        assert ("4-bit" in done.stdout) == bool(told)


def test_what_was_not_trained_in_4_bits_is_refused(small_base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(small_base, tmp_path / "adapter", load_in_4bit=False, engine="peft")
    with pytest.raises(UserError, match="was trained on the 16-bit base"):
        export(adapter, tmp_path / "model", "f16", onto="nf4")
    with pytest.raises(UserError, match="--onto nf4 is for an adapter"):
        export(adapter, tmp_path / "model", "f16", base_only=True, onto="nf4")
    with pytest.raises(UserError, match="leave --onto nf4 out"):
        four_bit_base({}, adapter)
