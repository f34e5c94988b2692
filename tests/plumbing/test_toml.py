"""TOML -> dataclass: every fault of a table in one line, and nothing that does not fit gets in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from plumbing.errors import UserError
from plumbing.toml_file import fill, read_toml, table_faults


@dataclass(frozen=True)
class Settings:
    name: str
    epochs: int
    rate: float = 0.1
    quick: bool = False
    seed: int | None = None
    targets: tuple[str, ...] = ()
    paths: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    made: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"'epochs' is {self.epochs}, expected 1 or more")


GOOD: dict[str, Any] = {"name": "x", "epochs": 2}


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({}, []),
        ({"rate": 1, "quick": True, "seed": 3, "targets": ["a"], "paths": ["b"], "shares": {"a": 1, "b": 0.5}}, []),
        ({"epochs": "2"}, ["'epochs' is '2', expected int"]),
        ({"epochs": 2.0}, ["'epochs' is 2.0, expected int"]),
        ({"epochs": True}, ["'epochs' is True, expected int"]),
        ({"rate": False}, ["'rate' is False, expected float"]),
        ({"quick": 1}, ["'quick' is 1, expected bool"]),
        ({"seed": "x"}, ["'seed' is 'x', expected int | None"]),
        ({"targets": "q_proj"}, ["'targets' is 'q_proj', expected tuple[str, ...]"]),
        ({"targets": ["a", 1]}, ["'targets' is ['a', 1], expected tuple[str, ...]"]),
        ({"shares": {"a": "b"}}, ["'shares' is {'a': 'b'}, expected dict[str, float]"]),
        ({"made": "x"}, ["unknown key 'made' (known: epochs, name, paths, quick, rate, seed, shares, targets)"]),
        ({"epoch": 3}, ["unknown key 'epoch' (did you mean 'epochs'?)"]),
        ({"zzz": 3, "name": 5}, ["'name' is 5, expected str",
            "unknown key 'zzz' (known: epochs, name, paths, quick, rate, seed, shares, targets)"]),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit(change: dict[str, Any], faults: list[str]) -> None:
    assert table_faults(Settings, GOOD | change) == faults


def test_all_faults_stand_in_one_error() -> None:
    with pytest.raises(UserError) as caught:
        fill(Settings, {"epoch": 3, "rate": "x"}, "my.toml")
    assert str(caught.value) == (
        "my.toml: 4 faults: 'rate' is 'x', expected float; missing key 'epochs'; missing key 'name'; "
        "unknown key 'epoch' (did you mean 'epochs'?)"
    )


def test_a_value_the_dataclass_refuses_names_the_file() -> None:
    assert fill(Settings, GOOD, "my.toml") == Settings("x", 2)
    with pytest.raises(UserError, match=r"^my\.toml: 'epochs' is 0, expected 1 or more$"):
        fill(Settings, GOOD | {"epochs": 0}, "my.toml")


def test_a_mark_before_the_first_letter_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbfa = 1")
    assert read_toml(tmp_path / "x.toml") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "said"), [(b"a = ", "not valid TOML"), (b"a = 1\na = 2", "not valid TOML"), (b"\xff", "not valid TOML")]
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.toml"
    with pytest.raises(UserError, match=r"x\.toml: no such file"):
        read_toml(path)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"x.toml: {said}"):
        read_toml(path)
