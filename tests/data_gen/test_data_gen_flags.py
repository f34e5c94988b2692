"""`python -m data_gen` with a teacher, and its dataset written for `datasets` and pushed to a Hub, as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contract.contract import load_contract
from contract.example import read_splits
from plumbing.handover import check_outputs, read_manifest
from tests.conftest import ROOT
from tests.fake_ollama import FakeOllama, Question, Reply, apt, moody
from tests.finished_dataset import FACTS, contents
from tests.hub_server import Hub

COUNT = 100


def run(out: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_gen", "terminology", "--out", str(out), "--count", str(COUNT)]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


def test_a_teacher_writes_the_answers_and_what_it_fails_is_listed(tmp_path: Path) -> None:
    out, journal = tmp_path / "d", tmp_path / "d.teacher.jsonl"
    with FakeOllama(moody) as fake:
        done = run(out, "--teacher", "ollama:m", OLLAMA_HOST=fake.url)
        assert done.returncode == 0, done.stderr
        asked, before = len(fake.questions), contents(out)
        again = run(out, "--teacher", "ollama:m", OLLAMA_HOST=fake.url)
        assert again.returncode == 0 and len(fake.questions) == asked, again.stderr
    manifest = read_manifest(out, "dataset")
    check_outputs(out, manifest)
    rows = [row for split in read_splits(out, load_contract("terminology")).values() for row in split]
    failed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert len(rows) + len(failed) == COUNT == len(journal.read_text().splitlines()) and len(failed) > 5
    assert not {row.id for row in rows} & {row["id"] for row in failed}
    assert {row["rejections"][-1]["reason"] for row in failed} == {"NUMBER"}
    assert all(row.record["definition"].startswith("Put simply, ") for row in rows)
    teacher = manifest["settings"]["teacher"]
    assert (teacher["model"], teacher["accepted"], teacher["failed"]) == ("m", len(rows), len(failed))
    card = (out / "README.md").read_text()
    assert (
        f"{COUNT}: {len(rows)} accepted, {len(failed)} failed (failed.jsonl)" in card and "--teacher ollama:m" in card
    )
    assert contents(out) == before
    plain = run(out)
    assert plain.returncode == 0 and not (out / "failed.jsonl").exists(), "the composed dataset replaces the taught one"


def test_a_teacher_that_leaves_a_split_empty_writes_no_folder(tmp_path: Path) -> None:
    def once(question: Question) -> Reply:
        return apt(question) if question.concept == fine else question.record(explanation="Of 99 kinds 98 are such.")

    with FakeOllama(once) as fake:
        fine = "abscess"  # whose split is train
        done = run(tmp_path / "d", "--teacher", "ollama:m", "--attempts", 1, "--count", 720, OLLAMA_HOST=fake.url)
    assert done.returncode == 1 and "no row falls into validation and test after teaching: 719 of 720" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["d.teacher.jsonl"]


def test_one_call_makes_writes_and_publishes(tmp_path: Path) -> None:
    import datasets

    out, disk = tmp_path / "d", tmp_path / "disk"
    with Hub() as hub:
        reach = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_writer",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "home"),
        }
        done = run(out, "--save-to-disk", disk, "--push", "writer/terms", "--private", **reach)
        assert done.returncode == 0, done.stderr
        repo = hub.repos["dataset", "writer/terms"]
    published = {name: data for name, data in repo.files.items() if name != ".gitattributes"}
    assert published == contents(out) and repo.private
    loaded = datasets.load_from_disk(str(disk))
    assert sum(map(len, loaded.values())) == COUNT and set(loaded) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "flag",
    [
        ["--push", "no slash/at all/"],
        ["--save-to-disk", "."],
        ["--push", ""],
        ["--teacher", ""],
        ["--teacher", "gpt"],
        ["--private"],
        ["--out", FACTS / "new"],
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path: Path, flag: list[str]) -> None:
    done = run(tmp_path / "d", *flag, HF_TOKEN="hf_writer")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert done.stdout == "" and list(tmp_path.iterdir()) == []
