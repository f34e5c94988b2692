"""The journal of a teacher's run: nothing written is lost, nothing half-written is read, one process at a time."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from data_gen.teacher.journal import Entry, Rejection, open_journal
from plumbing.errors import UserError

GOOD = Entry("a/0", "f1", {"definition": "Ünique."}, (Rejection("NUMBER", "5"),), "", 3)
BAD = Entry("a/1", "f1", None, (Rejection("CUT", "cut"),), 'half of a pair: "\ud83d"', 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new/dataset.teacher.jsonl"


def written(path: Path, *entries: Entry) -> Path:
    with open_journal(path) as journal:
        for entry in entries:
            journal.append(entry)
    return path


def read(path: Path) -> tuple[list[Entry], list[str]]:
    with open_journal(path) as journal:
        return list(journal.entries.values()), [note.removeprefix(f"{path}: ") for note in journal.lines.notes]


def test_what_is_appended_is_read(path: Path) -> None:
    assert read(written(path, GOOD, BAD)) == ([GOOD, BAD], [])
    assert read(written(path, dataclasses.replace(GOOD, id="a/2")))[0][2].id == "a/2"
    assert len(path.read_bytes().splitlines()) == 3


def test_a_line_is_on_the_disk_before_the_next_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda number: sizes.append(os.fstat(number).st_size))
    with open_journal(path) as journal:
        for entry in (GOOD, BAD):
            journal.append(entry)
            assert sizes[-1] == path.stat().st_size > 0
    assert len(sizes) == 2


def test_an_entry_is_told_by_id_and_fingerprint(path: Path) -> None:
    other = dataclasses.replace(GOOD, fingerprint="f2")
    later = dataclasses.replace(BAD, attempts=5)
    assert read(written(path, GOOD, other, BAD, later))[0] == [GOOD, other, later]


@pytest.mark.parametrize("kept", [1, 20, -2, -1], ids=["one byte", "a piece", "no brace", "no line break"])
def test_a_torn_last_line_is_dropped(path: Path, kept: int) -> None:
    whole = written(path, GOOD).read_bytes()
    line = json.dumps(dataclasses.asdict(BAD)).encode() + b"\n"
    path.write_bytes(whole + line[:kept])
    assert read(path) == ([GOOD], ["the last line was cut short; what it held is asked again"])
    assert path.read_bytes() == whole
    assert read(written(path, BAD)) == ([GOOD, BAD], [])


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "null", "\x00\x00", '{"id": "x"}', '{"id":1,"fingerprint":"f","record":null,"rejections":[],"answer":"","attempts":3}',
     '{"id":"x","fingerprint":"f","record":null,"rejections":[],"answer":"","attempts":3}', "[" * 100_000],
    ids=["no JSON", "a list", "null", "NUL", "keys missing", "a number", "neither record nor rejection", "deep"],
)  # fmt: skip
def test_a_damaged_line_costs_its_row_alone(path: Path, line: str) -> None:
    written(path, GOOD)
    with path.open("a") as file:
        file.write(line + "\n")
    written(path, BAD)
    assert read(path) == ([GOOD, BAD], ["lines that cannot be read: 1; what they held is asked again"])


@pytest.mark.parametrize("text", ["my thesis\nunfinished", "my thesis", '{"id"; "x"}'])
def test_another_file_is_left_alone(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=r"holds no line of a teacher's journal; move it away"):
        read(path)
    assert path.read_text() == text


def _try_to_open(path: Path, found: multiprocessing.Queue[str]) -> None:
    try:
        with open_journal(path):
            found.put("opened")
    except UserError as error:
        found.put(str(error))


@pytest.mark.skipif(os.name == "nt", reason="no flock there")
def test_a_second_process_is_refused(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[str] = context.Queue()
    for inside, wanted in ((True, f"{path}: another run is writing it; wait for its end"), (False, "opened")):
        with open_journal(path if inside else path.with_name("other")):
            process = context.Process(target=_try_to_open, args=(path, found))
            process.start()
            assert found.get(timeout=20).startswith(wanted)
            process.join()
