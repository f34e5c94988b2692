"""Disk, memory and base of an export, and kills in its midst: told in one line, and nothing half-written stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest, sha256
from quantize.export import export
from quantize.stream import LIBRARY, load_quantizer
from tests.conftest import ROOT, make_small_adapter, make_small_base
from tests.quantize.test_main import GGUF, command, left, poison, rewrite


def test_too_small_a_disk_is_told_before_anything_is_written(
    small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5 * 10**5, 5 * 10**5)
    )
    with pytest.raises(
        UserError, match=r"model: needs 1\.\d MB, 0\.5 MB are free; free some space or name another --out"
    ):
        export(small_adapter, tmp_path / "model")
    assert left(tmp_path) == []


def test_too_little_memory_is_told_before_anything_is_written(
    small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=92_000_000))
    with pytest.raises(UserError, match=r"needs 1\d\d MB of memory on \d+ cores, 92 MB are available; close other"):
        export(small_adapter, tmp_path / "model")
    assert left(tmp_path) == []


@pytest.mark.parametrize("place", ["vocabulary", "table of tensors", "tensors", "last byte"])
def test_a_disk_that_fills_up_in_mid_write_leaves_the_old_folder(
    small_adapter: Path, tmp_path: Path, place: str
) -> None:
    from gguf import GGUFReader

    pytest.importorskip("resource")
    out = tmp_path / "model"
    export(small_adapter, out)
    table, size = GGUFReader(out / GGUF).data_offset, (out / GGUF).stat().st_size
    limit = {"vocabulary": 5000, "table of tensors": table - 300, "tensors": size // 2, "last byte": size - 1}[place]
    before = sha256(out / GGUF)
    done = command(
        small_adapter,
        "--out",
        out,
        code=f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))",
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and lines[-1].startswith(f"error: {tmp_path}: cannot write 1."), done.stderr
    assert "free some space or name another --out" in lines[-1] and "Traceback" not in done.stderr
    assert sha256(out / GGUF) == before and left(tmp_path) == ["model"]


def test_another_base_is_told_while_the_files_are_being_written(
    small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Path(shutil.copytree(small_adapter, tmp_path / "adapter"))
    rewrite(adapter, base_folder=str(make_small_base(tmp_path / "base", seed=5)))
    real, made = load_quantizer(), []

    def slowly(matrix: np.ndarray, kinds: object) -> dict[str, np.ndarray]:
        made.append(matrix.shape)
        time.sleep(0.2)
        return real(matrix, kinds)  # type: ignore[arg-type]

    monkeypatch.setattr("quantize.export.load_quantizer", lambda: slowly)
    monkeypatch.setattr("quantize.export.cores", lambda: 1)
    with pytest.raises(UserError, match="was trained on another base than"):
        export(adapter, tmp_path / "out" / "model")
    assert len(made) < 15 and left(tmp_path / "out") == []


def test_one_library_of_llama_cpp_is_enough(small_adapter: Path, tmp_path: Path) -> None:
    import llama_cpp

    shutil.copyfile(Path(llama_cpp.__file__).parent / "lib" / LIBRARY, tmp_path / LIBRARY)
    hide = "real = u.find_spec; u.find_spec = lambda name, *more: None if name == 'llama_cpp' else real(name, *more)"
    for place, code, told in [
        (str(tmp_path), 0, ""),
        ("", 1, "error: llama-cpp-python is not installed: its quantiser"),
    ]:
        start = f"import importlib.util as u, os; {hide}; os.environ['LLAMA_CPP_LIB_PATH'] = {place!r}"
        done = command(small_adapter, "--out", tmp_path / "model", code=start)
        assert done.returncode == code and done.stderr.startswith(told), done.stderr
    versions = read_manifest(tmp_path / "model", "model")["versions"]
    assert "gguf" in versions and "llama-cpp-python" not in versions


def test_a_failing_export_does_not_wait_for_the_base_to_be_read(
    small_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Path(shutil.copytree(small_adapter, tmp_path / "adapter"))
    poison(adapter, np.nan)
    monkeypatch.setattr("quantize.export.check_same_base", lambda *arguments: time.sleep(30))
    started = time.monotonic()
    with pytest.raises(UserError, match="holds values that are not numbers"):
        export(adapter, tmp_path / "out" / "model")
    assert time.monotonic() - started < 15 and left(tmp_path / "out") == []


def test_a_kill_at_any_moment_leaves_the_old_folder_or_the_new_one(tmp_path: Path) -> None:
    base = make_small_base(tmp_path / "base", hidden_size=512, intermediate_size=2048, num_hidden_layers=6)
    adapter, out = make_small_adapter(base, tmp_path / "adapter"), tmp_path / "out" / "model"
    export(adapter, out, "q8_0")
    killed = 0
    for number in range(20):
        run = subprocess.Popen(
            [sys.executable, "-m", "quantize", str(adapter), "--out", str(out)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while run.poll() is None and not list(out.parent.glob(f".model.partial*/{GGUF}")):
            time.sleep(0.001)
        time.sleep(number * 0.02)
        run.kill()
        killed += run.wait(20) != 0 and bool(list(out.parent.glob(f".model.partial*/{GGUF}")))
        check_outputs(out, read_manifest(out, "model"))  # whole: every byte is of the old run or of the new one
    assert killed >= 5, "killed in the middle of the export"
    export(adapter, out)
    assert left(out.parent) == ["model"] and GGUF in left(out)
    check_outputs(out, read_manifest(out, "model"))
