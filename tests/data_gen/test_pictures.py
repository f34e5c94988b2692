"""The card's pictures: small PNGs, the same bytes on any machine with the same matplotlib."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from contract.example import Example
from data_gen.pictures import pictures
from tests.conftest import ROOT
from tests.finished_dataset import make_own


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "dataset"
    make_own(folder)
    return folder


def test_pictures_are_small_pngs(own: Path) -> None:
    for path in sorted(own.glob("*.png")):
        content = path.read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and width == 800 and 300 <= height <= 1000
        assert 3_000 < len(content) < 40_000 and b"Software" not in content and b"tEXt" not in content
    assert [path.name for path in sorted(own.glob("*.png"))] == ["categories_by_split.png", "lengths.png"]


def test_many_categories_and_odd_names_still_fit(tmp_path: Path) -> None:
    rows = [Example(f"t/{n}/x-1", f"c{n}", f"${n % 57}$_^ {'long ' * 20}", "What?", "", {}, "w " * (n % 400), ())
            for n in range(2000)]  # fmt: skip
    for path in pictures({"train": rows, "validation": rows[:1], "test": rows[:57]}, tmp_path):
        assert path.stat().st_size < 40_000 and struct.unpack(">I", path.read_bytes()[20:24])[0] < 1600


SCRIPT = """
import socket, sys
from pathlib import Path
from contract.contract import load_contract
from contract.example import read_splits
from data_gen.card import card
from data_gen.pictures import pictures

def refuse(*_):
    raise SystemExit("asked the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
folder, out = map(Path, sys.argv[1:])
contract = load_contract(folder / "task.toml")
dataset = read_splits(folder, contract)
pictures(dataset, out)
made = {"command": "c", "task": "t", "seed": 1, "sha256": "s"}
(out / "README.md").write_text(card(contract, dataset, [], "-", made), encoding="utf-8")
"""


def test_a_bare_machine_without_network_or_display_draws_the_same_bytes(own: Path, tmp_path: Path) -> None:
    (tmp_path / "draw.py").write_text(SCRIPT)
    (tmp_path / "matplotlibrc").write_text("figure.dpi: 37\nfont.size: 31\naxes.facecolor: black\nbackend: TkAgg\n")
    for name, settings in [("one", {}), ("two", {"MATPLOTLIBRC": str(tmp_path), "PYTHONHASHSEED": "5"})]:
        (tmp_path / name).mkdir()
        variables = (
            os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "DISPLAY": "", "TZ": "Asia/Tokyo"} | settings
        )
        command = [sys.executable, tmp_path / "draw.py", own, tmp_path / name]
        done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    for name in ("categories_by_split.png", "lengths.png", "README.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    for name in ("categories_by_split.png", "lengths.png"):
        assert (tmp_path / "one" / name).read_bytes() == (own / name).read_bytes(), name
