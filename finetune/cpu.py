"""This machine's CPU -> the environment that torch's kernels (oneDNN) need on it.  Call before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_PROBE = "import torch; a = torch.ones(64, 64, dtype=torch.bfloat16); a @ a"


def prepare_cpu() -> None:
    """Bound what oneDNN keeps in memory, and keep it from instructions that only seem to be there."""
    # oneDNN keeps compiled code for 1,024 shapes, and batches differ in length: 0.8 GiB after 400 steps.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if "ONEDNN_MAX_CPU_ISA" not in os.environ and _has_amx() and not _multiplies():
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_FP16"  # the last one below AMX


def has_bf16_units() -> bool:
    """Whether bf16 is the fast arithmetic of this CPU: by AVX512-BF16 or by working AMX; elsewhere fp32 is faster."""
    return _says("avx512_bf16") or (_has_amx() and "AMX" in os.environ.get("ONEDNN_MAX_CPU_ISA", "AMX"))


def _has_amx() -> bool:
    """Whether the CPU says that it has matrix units (AMX) for bf16."""
    return _says("amx_bf16")


def _says(feature: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    return cpuinfo.is_file() and feature in cpuinfo.read_text(encoding="utf-8", errors="replace").split()


def _multiplies() -> bool:
    """Whether a product in bf16 works: in some virtual machines AMX is announced and then an illegal instruction.

    Tried in a process of its own (2 to 3 s), which such an instruction may end.
    """
    return subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False).returncode == 0
