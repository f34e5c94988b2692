"""Publishing on the disk: what `datasets` reads back, and that nothing foreign is ever replaced."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.example import SPLITS
from data_gen.publication import check_finished, check_target, features, left_out, save_to_disk
from data_gen.publish import main
from plumbing.errors import UserError
from plumbing.handover import check_outputs, read_manifest, write_manifest
from tests.finished_dataset import contents, make_own, make_terminology, rows_of


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished dataset folders."""
    makers: dict[str, Callable[[Path], str]] = {"terminology": make_terminology, "own": make_own}
    folders = {name: tmp_path_factory.mktemp(name) / "dataset" for name in makers}
    for name, make in makers.items():
        make(folders[name])
    return folders


@pytest.fixture
def folder(made: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the smaller one."""
    return Path(shutil.copytree(made["own"], tmp_path / "dataset"))


@pytest.mark.parametrize("name", ["terminology", "own"])
@pytest.mark.parametrize("way", ["folder", "json", "disk"])
def test_datasets_reads_every_row_with_typed_columns(
    made: dict[str, Path], name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from huggingface_hub import constants

    for module in (datasets.config, constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", True)
    folder = made[name]
    cache = str(tmp_path / "cache")
    if way == "folder":
        found = datasets.load_dataset(str(folder), cache_dir=cache)
    elif way == "json":
        files = {split: str(folder / f"{split}.jsonl") for split in SPLITS}
        found = datasets.load_dataset("json", data_files=files, cache_dir=cache)
    else:
        save_to_disk(folder, tmp_path / "arrow")
        found = datasets.load_from_disk(str(tmp_path / "arrow"))
    rows = rows_of(folder)
    assert list(found) == list(SPLITS)
    for split in SPLITS:
        if way == "json" and name == "own":  # keywords are empty in every row: their type cannot be guessed
            found[split] = found[split].cast(features(folder))
        assert found[split].features == features(folder)
        assert found[split].to_list() == rows[split]


def test_the_types_follow_the_kinds_of_the_sections(made: dict[str, Path]) -> None:
    from datasets import List, Value

    typed = features(made["own"])
    text = Value("string")
    record = {"what": text, "signs": List(text), "cards": List({"Q": text, "A": text}), "sure": text}
    assert typed["record"] == record and typed["keywords"] == List(text)
    assert list(typed) == ["id", "concept", "category", "request", "system", "record", "response", "keywords"]
    assert all(typed[name] == text for name in set(typed) - {"record", "keywords"})


def test_a_saved_dataset_explains_itself_and_is_replaced_whole(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "arrow"
    before = contents(folder)
    save_to_disk(folder, target)
    first = contents(target)
    (target / "data.txt").write_text("a file of the user's own")
    with pytest.raises(UserError, match=r"no stage of ours wrote \(data.txt\)"):
        save_to_disk(folder, target)
    (target / "data.txt").unlink()
    save_to_disk(folder, target)
    assert contents(target).keys() == first.keys()
    manifest = read_manifest(target, "save_to_disk")
    check_outputs(target, manifest)
    assert manifest["counts"] == {split: len(rows) for split, rows in rows_of(folder).items()}
    assert set(contents(folder)) - set(contents(target)) == {f"{split}.jsonl" for split in SPLITS}
    assert contents(folder) == before and [path.name for path in target.parent.iterdir()] == ["arrow"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("dataset", "overlaps with the dataset folder"),
        ("dataset/arrow", "overlaps with the dataset folder"),
        (".", "overlaps with the dataset folder"),
        ("mine", "holds other files"),
        ("adapter", "'adapter'"),
        ("file", "is a file"),
    ],
)
def test_a_foreign_folder_is_never_replaced(folder: Path, tmp_path: Path, where: str, said: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "adapter").mkdir()
    write_manifest(tmp_path / "adapter", "adapter", {}, {}, {})
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    for refused in (check_target, save_to_disk):
        with pytest.raises(UserError, match=said):
            refused(folder, tmp_path / where)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to do: name a folder with --save-to-disk"),
        (["--private"], "--private needs --push OWNER/NAME"),
        (["--push", "a/b/c", "--save-to-disk", "arrow"], "is not a repository's name"),
        (["--save-to-disk", "."], "overlaps with"),
    ],
)
def test_a_mistaken_call_does_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["publish", str(folder), *arguments])
    before = contents(tmp_path)
    with pytest.raises(UserError, match=said):
        main()
    assert contents(tmp_path) == before


def test_a_finished_folder_is_finished(folder: Path) -> None:
    assert check_finished(folder)["stage"] == "dataset" and left_out(folder) == []
