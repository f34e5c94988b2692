"""A folder handed on appears whole or not at all and says what it was made from; killed writers cost nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plumbing.errors import UserError
from plumbing.handover import new_file, new_folder, write_manifest
from tests.conftest import ROOT


def _make(target: Path, text: str = "one") -> None:
    with new_folder(target) as folder:
        (folder / "data.txt").write_text(text)
        write_manifest(folder, "dataset", {}, {}, {})


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with new_folder(target) as folder:
        (folder / "data.txt").write_text("x")
        assert not target.exists() and folder.parent == target.parent
    assert _names(tmp_path / "deep") == ["out"]


def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    _make(tmp_path / "out")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        (folder / "data.txt").write_text("half")
        raise RuntimeError
    assert (tmp_path / "out/data.txt").read_text() == "one" and _names(tmp_path) == ["out"]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "gone.txt").write_text("x")
        write_manifest(folder, "dataset", {}, {}, {})
    _make(tmp_path / "out", "two")
    assert _names(tmp_path / "out") == ["data.txt", "manifest.json"] and _names(tmp_path) == ["out"]


WRITER = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
from pathlib import Path
from plumbing import handover
target, moment = Path(sys.argv[1]), sys.argv[2]
replace = os.replace
def stop(*_):
    print("ready", flush=True)
    time.sleep(60)
def replaced(source, to):
    replace(source, to)
    if moment == "between":
        os.replace = replace
        stop()
os.replace = replaced
with handover.new_folder(target) as folder:
    (folder / "data.txt").write_text("half")
    if moment == "writing":
        stop()
    handover.write_manifest(folder, "dataset", {}, {}, {})
"""


def _start_writer(target: Path, moment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(target), moment]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()


def test_an_equal_folder_stays_where_it_is_when_that_is_expected(tmp_path: Path) -> None:
    def make(text: str, keep_equal: bool = True) -> int:
        with new_folder(tmp_path / "out", keep_equal=keep_equal) as folder:
            (folder / "data.txt").write_text(text)
            write_manifest(folder, "dataset", {"fact": "a"}, {"seed": 1}, {}, started=time.monotonic())
        assert _names(tmp_path) == ["out"]
        return (tmp_path / "out").stat().st_ino

    first = make("one")
    assert make("one") == first
    assert make("one", keep_equal=False) != first
    second = make("one")
    assert make("two") != second and (tmp_path / "out/data.txt").read_text() == "two"
    third = make("two")
    (tmp_path / "out/data.txt").write_text("changed by hand")
    assert make("two") != third and (tmp_path / "out/data.txt").read_text() == "two"


def test_what_another_stage_made_is_never_replaced(tmp_path: Path) -> None:
    _make(tmp_path / "out")
    said = r"out: holds what the stage 'dataset' made; name another folder with --out"
    with pytest.raises(UserError, match=said), new_folder(tmp_path / "out", "adapter"):
        pass
    assert (tmp_path / "out/data.txt").read_text() == "one" and _names(tmp_path) == ["out"]
    with new_folder(tmp_path / "out", "dataset"):
        pass
    assert _names(tmp_path / "out") == []


@pytest.mark.parametrize("moment", ["writing", "between"])
def test_a_killed_writer_costs_nothing(tmp_path: Path, moment: str) -> None:
    target = tmp_path / "out"
    _make(target)
    _kill(_start_writer(target, moment))
    assert len(_names(tmp_path)) == 2, "the killed writer leaves its folder"
    with pytest.raises(RuntimeError), new_folder(target):
        assert (target / "data.txt").read_text() == "one", "the next writer puts the old folder back first"
        raise RuntimeError
    assert _names(tmp_path) == ["out"] and (target / "data.txt").read_text() == "one"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize("moment", ["writing", "between"])
def test_an_interrupt_puts_the_old_folder_back_at_once(tmp_path: Path, moment: str) -> None:
    _make(tmp_path / "out")
    process = _start_writer(tmp_path / "out", moment)
    process.send_signal(signal.SIGINT)
    process.wait(10)
    _kill(process)
    assert _names(tmp_path) == ["out"] and (tmp_path / "out/data.txt").read_text() == "one"


def test_a_living_writer_is_not_swept_away(tmp_path: Path) -> None:
    process = _start_writer(tmp_path / "out", "writing")
    partial = tmp_path / f".out.partial.{process.pid}"
    _make(tmp_path / "out")
    assert partial.is_dir()
    _kill(process)
    _make(tmp_path / "out")
    assert not partial.exists()


def test_sweeping_touches_nothing_else(tmp_path: Path) -> None:
    others = ["old.5", "partial.5", ".outer.partial.999999999", ".out.partial.x", ".out.backup.999999999", ".out"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".out.partial.999999999").mkdir()
    (tmp_path / f".out.partial.{os.getpid()}").mkdir()  # of a former process with our number, as in containers
    _make(tmp_path / "out")
    assert _names(tmp_path) == sorted([*others, "out"])


def test_a_name_with_pattern_characters_is_swept_too(tmp_path: Path) -> None:
    (tmp_path / ".out[1]*.partial.999999999").mkdir()
    _make(tmp_path / "out[1]*")
    assert _names(tmp_path) == ["out[1]*"]


@pytest.mark.parametrize(
    "content", [{"notes.txt": "mine"}, {"manifest.json": '{"name": "a browser extension"}'}, {"manifest.json": "[]"},
                {"manifest.json": "no json"}, {"manifest.json": "7"}],
)  # fmt: skip
def test_a_foreign_folder_is_never_replaced(tmp_path: Path, content: dict[str, str]) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    for name, text in content.items():
        (target / name).write_text(text)
    with pytest.raises(UserError, match=r"mine: holds other files .* name another folder with --out"):
        _make(target)
    assert {path.name: path.read_text() for path in target.iterdir()} == content and _names(tmp_path) == ["mine"]


def test_files_that_no_manifest_names_are_never_replaced(tmp_path: Path) -> None:
    _make(tmp_path / "out")
    for name in ("notes/thesis.txt", ".hidden", "checkpoints/1/state"):
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(
        UserError, match=r"out: holds files that no stage of ours wrote \(notes/thesis.txt\); move them"
    ):
        _make(tmp_path / "out", "two")
    assert (tmp_path / "out/notes/thesis.txt").read_text() == "mine"
    (tmp_path / "out/notes/thesis.txt").unlink()
    _make(tmp_path / "out", "two")
    assert (tmp_path / "out/data.txt").read_text() == "two"


def test_links_that_lead_to_each_other_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match=r"a: a link that leads back to itself; name another folder"):
        _make(tmp_path / "a")


def test_an_empty_folder_may_be_used_and_a_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _make(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file: is a file"):
        _make(tmp_path / "file")


@pytest.mark.parametrize("out", [".", "..", "../.."])
def test_the_folder_one_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b")
    with pytest.raises(UserError, match="the folder you are in, or one above it"):
        _make(Path(out))


def test_a_link_keeps_leading_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    _make(tmp_path / "disk/out")
    (tmp_path / "out").symlink_to(tmp_path / "disk/out")
    _make(tmp_path / "out", "two")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk/out/data.txt").read_text() == "two"
    assert _names(tmp_path) == ["disk", "out"] and _names(tmp_path / "disk") == ["out"]


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "deep/report.json"
    with new_file(target) as partial:
        partial.write_text("one")
        assert not target.exists()
    with pytest.raises(RuntimeError), new_file(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "one" and _names(tmp_path / "deep") == ["report.json"]
    (tmp_path / "deep/.report.json.partial.999999999").write_text("killed")
    with new_file(target) as partial:
        partial.write_text("two")
    assert target.read_text() == "two" and _names(tmp_path / "deep") == ["report.json"]
