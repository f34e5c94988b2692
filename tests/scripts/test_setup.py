"""scripts/setup.sh on a pretended Colab: a Python with packages of its own, real pip, nothing to download from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT

TORCH = "2.9.9+colab"  # another one than constraints.txt names


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python installation with this environment's packages as its own, whose torch calls itself TORCH."""
    python = tmp_path_factory.mktemp("colab") / "bin" / "python3"
    python.parent.mkdir()
    shutil.copy2(Path(sys._base_executable).resolve(), python)  # type: ignore[attr-defined]
    library = python.parent.parent / "lib" / f"python3.{sys.version_info.minor}"
    library.mkdir(parents=True)
    for part in Path(os.__file__).parent.iterdir():
        if part.name not in ("site-packages", "dist-packages", "__pycache__"):
            (library / part.name).symlink_to(part)
    packages, ours = (
        Path(answer(python, "import site; print(site.getsitepackages()[0])")),
        sysconfig.get_path("purelib"),
    )
    packages.mkdir(parents=True, exist_ok=True)
    for part in Path(ours).iterdir():
        if not part.match("torch-*"):
            (packages / part.name).symlink_to(part)
    told = shutil.copytree(next(Path(ours).glob("torch-*")), packages / f"torch-{TORCH}.dist-info") / "METADATA"
    told.write_text(re.sub(r"(?m)^Version: .*", f"Version: {TORCH}", told.read_text(encoding="utf-8"), count=1))
    return python


def answer(python: Path, code: str) -> str:
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def setup(python: Path, venv: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Without an index: whatever pip does not count as installed ends the run."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_", "COLAB", "PYTHON"))}
    environment = kept | {"PYTHON3": str(python), "VENV": str(venv), "PIP_NO_INDEX": "1"}
    return subprocess.run(["scripts/setup.sh"], cwd=ROOT, capture_output=True, text=True, env=environment | more)


@pytest.mark.parametrize("sign", ["COLAB_RELEASE_TAG", "google.colab"])
def test_on_colab_the_running_pythons_torch_is_the_one_in_use(python: Path, sign: str, tmp_path: Path) -> None:
    (tmp_path / "google" / "colab").mkdir(parents=True)
    signs = {"COLAB_RELEASE_TAG": {sign: "release-colab_20261101"}, "google.colab": {"PYTHONPATH": str(tmp_path)}}
    venv = tmp_path / "venv"
    done = setup(python, venv, **signs[sign])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"torch {TORCH} of the running Python" in done.stdout
    here, torch = answer(
        venv / "bin/python", "import sys, importlib.util as i; print(sys.prefix, i.find_spec('torch').origin)"
    ).split()
    assert Path(here) == venv and Path(torch).is_relative_to(python.parent.parent)
    assert not list(venv.glob("lib/python*/site-packages/torch*"))
    assert (venv / "installed").exists()
    bounds = (venv / "constraints.txt").read_text()
    assert f"torch=={TORCH}\n" in bounds and "transformers==" in bounds and bounds.count("torch==") == 1


def test_elsewhere_the_environment_stands_alone(python: Path, tmp_path: Path) -> None:
    done = setup(python, tmp_path / "venv")
    assert done.returncode != 0 and "Colab" not in done.stdout  # without an index uv cannot be had
    assert "include-system-site-packages = false" in (tmp_path / "venv/pyvenv.cfg").read_text()
    assert not (tmp_path / "venv/installed").exists()
