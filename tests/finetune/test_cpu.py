"""finetune/cpu.py: a CPU that announces matrix units it cannot use trains without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finetune import cpu


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ONEDNN_MAX_CPU_ISA", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("announced", "probe", "wanted"),
    [
        (True, "import os, signal; os.kill(os.getpid(), signal.SIGILL)", "AVX512_CORE_FP16"),
        (True, "pass", None),
        (False, "raise SystemExit('nobody asks')", None),
    ],
)
def test_instructions_that_end_the_process_are_kept_from(
    monkeypatch: pytest.MonkeyPatch, announced: bool, probe: str, wanted: str | None
) -> None:
    monkeypatch.setattr(cpu, "_has_amx", lambda: announced)
    monkeypatch.setattr(cpu, "_PROBE", probe)
    cpu.prepare_cpu()
    assert os.environ.get("ONEDNN_MAX_CPU_ISA") == wanted and os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setattr(cpu, "_has_amx", lambda: True)
    monkeypatch.setattr(cpu, "_PROBE", "raise SystemExit(1)")
    cpu.prepare_cpu()
    assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.parametrize(
    ("flags", "amx"), [("flags: avx512f amx_bf16 amx_tile", True), ("flags: avx2", False), (None, False)]
)
def test_the_announcement_is_read_where_linux_makes_it(tmp_path: Path, flags: str | None, amx: bool) -> None:
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(flags)
    assert cpu._announces("amx_bf16", tmp_path / "cpuinfo") is amx
