"""Sets the environment that torch's CPU kernels (oneDNN) need.  Call it before importing torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PROBE = "import torch; a = torch.ones(64, 64, dtype=torch.bfloat16); a @ a"


def prepare_cpu() -> None:
    """Limit oneDNN's memory, and turn off instructions that the CPU announces but cannot run."""
    # By default oneDNN keeps compiled code for 1,024 shapes.  Batches differ in length: 0.8 GiB after 400 steps.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if "ONEDNN_MAX_CPU_ISA" not in os.environ and _has_amx() and not _multiplies():
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_FP16"  # the last one below AMX


def has_bf16_units() -> bool:
    """Whether bf16 is this CPU's fast arithmetic: with AVX512-BF16 or working AMX.  Elsewhere fp32 is faster."""
    return _announces("avx512_bf16") or (_has_amx() and "AMX" in os.environ.get("ONEDNN_MAX_CPU_ISA", "AMX"))


def _has_amx() -> bool:
    """Whether the CPU announces matrix units (AMX) for bf16."""
    return _announces("amx_bf16")


def _announces(feature: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    return cpuinfo.is_file() and feature in cpuinfo.read_text(encoding="utf-8", errors="replace").split()


def _multiplies() -> bool:
    """Whether a product in bf16 works: some virtual machines announce AMX, but its instructions are illegal there.

    This is tried in a separate process (2 to 3 s), because an illegal instruction ends the process.
    """
    return subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False).returncode == 0
