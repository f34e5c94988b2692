"""quantize.stream: parts of tensors in order, the same bytes however they are cut, bounded memory, one error."""

from __future__ import annotations

import dataclasses
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from models.tensors import Tensor, round_to
from plumbing.errors import UserError
from quantize import stream as module
from quantize.export import export, gguf_path
from quantize.layout import Placed
from quantize.stream import AHEAD, Part, load_quantizer, make_blocks, memory, split, stream
from tests.conftest import make_small_adapter, make_small_base
from tests.quantize.test_gguf_file import on_a_grid


def part(path: Path, rows: int, columns: int, heads: int = 0, kinds: tuple[str, ...] = ("Q8_0",)) -> Part:
    """A matrix of random float16 values, on disk."""
    np.random.default_rng(0).standard_normal((rows, columns), np.float32).astype(np.float16).tofile(path)
    return Part(Placed("w", "w", heads), Tensor("w", (rows, columns), "F16", path, 0), None, kinds)


@pytest.mark.parametrize("shape", [{}, {"num_key_value_heads": 1, "head_dim": 96}, {"hidden_size": 320}])
def test_the_bytes_are_the_same_however_tensors_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: dict[str, int]
) -> None:
    base = make_small_base(tmp_path / "base", **shape)
    adapter = on_a_grid(make_small_adapter(base, tmp_path / "adapter"))
    export(adapter, tmp_path / "whole", "q4_k_m,f16")
    monkeypatch.setattr(module, "VALUES", 1)
    monkeypatch.setattr(module, "AHEAD", 1)
    export(adapter, tmp_path / "cut", "q4_k_m,f16")
    for kind in ("q4_k_m", "f16"):
        assert gguf_path(tmp_path / "whole", kind).read_bytes() == gguf_path(tmp_path / "cut", kind).read_bytes()


@pytest.mark.parametrize(
    ("rows", "columns", "heads", "step"),
    [
        (4096, 4096, 32, 128),  # Mistral's q: a head is 128 rows
        (4096, 4096, 0, 128),
        (4096, 14336, 0, 64),  # its down: more than VALUES, yet no fewer rows
        (32768, 4096, 0, 128),
        (960, 4096, 10, 192),  # heads of 96 rows
        (64, 256, 4, 64),
    ],
)
def test_parts_are_whole_heads_and_miss_no_row(tmp_path: Path, rows: int, columns: int, heads: int, step: int) -> None:
    tensor = Tensor("w", (rows, columns), "F16", tmp_path / "none", 100)
    found = split(Part(Placed("w", "w", heads), tensor, None, ("Q8_0",)))
    assert [piece.tensor.shape[0] for piece in found] == [step] * (rows // step) and rows % step == 0
    assert [piece.tensor.offset for piece in found] == [100 + 2 * columns * start for start in range(0, rows, step)]
    assert not heads or {step // piece.placed.heads for piece in found} == {rows // heads}


def test_the_last_part_may_be_smaller(tmp_path: Path) -> None:
    found = split(part(tmp_path / "w", 300, 4096))
    assert [piece.tensor.shape[0] for piece in found] == [128, 128, 44]


def test_parts_come_in_order_and_few_are_begun_ahead(tmp_path: Path) -> None:
    tensor, begun, most = part(tmp_path / "w", 6400, 4096), 0, 0
    lock = threading.Lock()

    def slow(matrix: np.ndarray, kinds: object) -> dict[str, np.ndarray]:
        nonlocal begun
        with lock:
            begun += 1
        time.sleep(0.001 if matrix[0, 0] > 0 else 0)  # so that they end in another order
        return {"Q8_0": matrix[:, :1].copy()}

    taken = []
    for _, blocks in stream([tensor], slow, threads=3):
        time.sleep(0.005)  # a slow disk
        taken.append(blocks["Q8_0"])
        most = max(most, begun - len(taken))
    assert np.array_equal(np.concatenate(taken), tensor.tensor.read()[:, :1])
    assert most <= AHEAD * 3 < len(taken)


def test_the_first_error_ends_it_and_nothing_more_is_begun(tmp_path: Path) -> None:
    tensor, begun = part(tmp_path / "w", 6400, 4096), []

    def failing(matrix: np.ndarray, kinds: object) -> dict[str, np.ndarray]:
        begun.append(matrix)
        time.sleep(0.01)
        raise (
            UserError("the third") if len(begun) == 3 else UserError("another") if len(begun) > 3 else ZeroDivisionError
        )

    with pytest.raises(ZeroDivisionError):
        list(stream([tensor], failing, threads=1))
    time.sleep(0.1)
    assert len(begun) <= 2 and not [t for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_memory_is_bounded_by_what_preflight_asks_for(tmp_path: Path) -> None:
    tensors = [part(tmp_path / "w", 8192, 4096, kinds=("Q8_0", "F16"))]
    quantize = load_quantizer()
    tracemalloc.start()
    try:
        for _ in stream(tensors, quantize, threads=2):
            time.sleep(0.002)  # a slow disk: what is done waits in memory
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < memory(tensors, 2) < 4 * 8192 * 4096 / 2, "half of what the tensor alone takes in float32"


def test_a_file_that_became_shorter_is_told(tmp_path: Path) -> None:
    whole = part(tmp_path / "w", 64, 64)
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"w: ends before w does; fetch or make it again"):
        make_blocks(whole, load_quantizer())


def test_a_type_that_two_files_want_is_made_once(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def quantize(matrix: np.ndarray, kinds: object) -> dict[str, np.ndarray]:
        asked.append(list(kinds))  # type: ignore[call-overload]
        return {}

    make_blocks(dataclasses.replace(part(tmp_path / "w", 64, 64), kinds=("Q4_K", "Q6_K", "Q4_K")), quantize)
    assert asked == [["Q4_K", "Q6_K"]]


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0x7FC00000])
def test_no_nan_becomes_a_number_by_rounding(bits: int) -> None:
    values = np.array([bits, 0x3F800000], np.uint32).view(np.float32)
    for kind in ("BF16", "F16"):
        assert np.isnan(round_to(values.copy(), kind)).tolist() == [True, False]
