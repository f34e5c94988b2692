"""A folder's manifest: what it names, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from plumbing.errors import UserError
from plumbing.handover import check_outputs, new_folder, read_manifest, sha256, write_manifest
from tests.plumbing.test_handover import _make


def test_a_manifest_names_every_output(tmp_path: Path) -> None:
    target = tmp_path / "checkpoints" / "out"  # the parents' names do not matter
    with new_folder(target) as folder:
        for name in ("data.txt", "sub/deep.txt", "sub/manifest.json", "checkpoints/7/weights"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        write_manifest(
            folder, "dataset", {"facts": "abc"}, {"seed": 1}, {"train": 2}, ("jinja2",), time.monotonic() - 5
        )
    manifest = read_manifest(target, "dataset")
    assert sorted(manifest["outputs"]) == ["data.txt", "sub/deep.txt", "sub/manifest.json"]
    assert manifest["outputs"]["data.txt"] == sha256(target / "data.txt")
    assert (manifest["inputs"], manifest["settings"], manifest["counts"]) == (
        {"facts": "abc"},
        {"seed": 1},
        {"train": 2},
    )
    assert set(manifest["versions"]) == {"python", "jinja2"} and 5 <= manifest["seconds"] < 60
    check_outputs(target, manifest)


@pytest.mark.parametrize("change", ["edit", "delete", "folder"])
def test_a_changed_output_is_named(tmp_path: Path, change: str) -> None:
    _make(tmp_path / "out")
    path = tmp_path / "out/data.txt"
    if change == "edit":
        path.write_text("two")
    else:
        path.unlink()
    if change == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=r"out: changed since it was made: data\.txt; make the folder again"):
        check_outputs(tmp_path / "out", read_manifest(tmp_path / "out", "dataset"))


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "not a finished dataset folder"), ("{", "not a manifest of this project"), ("[]", "not a manifest"),
     ('{"stage": "dataset"}', "not a manifest of this project"),
     ("\ufffe", "not a manifest"), ("adapter", "made by the stage 'adapter'")],
)  # fmt: skip
def test_a_folder_of_another_kind_is_refused(tmp_path: Path, content: str | None, said: str) -> None:
    if content == "adapter":
        write_manifest(tmp_path, "adapter", {}, {}, {})
    elif content is not None:
        (tmp_path / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        read_manifest(tmp_path, "dataset")


@pytest.mark.parametrize(
    "change",
    [{"outputs": ["data.txt"]}, {"outputs": {"../data.txt": ""}}, {"outputs": {"/etc/hosts": ""}}, {"counts": 3},
     {"stage": ["dataset"]}, {"settings": None}],
)  # fmt: skip
def test_a_tampered_manifest_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_manifest(tmp_path, "dataset", {}, {}, {})
    path = tmp_path / "manifest.json"
    assert read_manifest(tmp_path, "dataset")["counts"] == {}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="not a manifest of this project; make the folder again"):
        read_manifest(tmp_path, "dataset")


def test_a_file_where_a_folder_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="not a finished dataset folder"):
        read_manifest(tmp_path / "file", "dataset")


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    write_manifest(tmp_path, "dataset", {}, {"name": "é"}, {})
    manifest: dict[str, Any] = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["settings"] == {"name": "é"} and manifest["stage"] == "dataset"
