"""`make TASK=path/my_task.toml`: every stage works in the task's own folder, and its model has the task's own name."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLASHCARD = """name = "flashcard"  # not the file's name
about = "You write study cards."
heading = "{title}: "
separator = "\\n\\n"
section = [ { name = "term", title = "Term", kind = "prose", max_words = 8 },
            { name = "meaning", title = "Meaning", kind = "prose", min_words = 5, max_words = 40 } ]
[data]
facts = "my_facts.jsonl"
requests = ["Make a card for {concept}.", "{Concept}?", "What is {concept}?"]
sections = { term = ["{Concept}"], meaning = ["{definition}"] }
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "cards" / "my_task.toml"
    path.parent.mkdir()
    path.write_text(FLASHCARD)
    rows = [
        {"id": f"c/{n}", "category": "c", "concept": f"thing {n}", "definition": f"thing {n} is a thing numbered {n}."}
        for n in range(40)
    ]
    (path.parent / "my_facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make(*arguments: object) -> str:
    settings = {"TASK", "PRESET", "NAME", "TYPE", "QUESTION", "DATASET", "MAKEFLAGS"}
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    command = ["make", "--no-print-directory", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_task_of_your_own_has_its_own_folder_and_name(task: Path) -> None:
    said = make("-n", "-B", "evaluate", "register", f"TASK={task}")
    assert f"-m data_gen {task} --out artifacts/flashcard/dataset\n" in said
    assert "--data artifacts/flashcard/dataset --out artifacts/flashcard/mistral_7b/adapter" in said
    assert "-m quantize.register artifacts/flashcard/mistral_7b/model flashcard\n" in said
    assert "--model flashcard --data artifacts/flashcard/dataset --out artifacts/flashcard/mistral_7b/report\n" in said
    assert "medical-mistral" not in said and "artifacts/terminology" not in said


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "medical-mistral"),
        (["PRESET=tiny"], "medical-mistral:tiny"),
        (["TASK=contract/tasks/terminology.toml"], "medical-mistral"),
        (["TASK={task}", "PRESET=tiny"], "flashcard:tiny"),
        (["TASK={copy}"], "terminology"),
        (["TASK={task}", "NAME=mine"], "mine"),
    ],
)
def test_only_the_shipped_task_makes_medical_mistral(task: Path, settings: list[str], name: str) -> None:
    copy = task.with_name("copy.toml")
    copy.write_text((ROOT / "contract/tasks/terminology.toml").read_text())
    said = make("-n", "register", *(setting.format(task=task, copy=copy) for setting in settings))
    assert said.splitlines()[-1].split()[-1] == name


def test_the_dataset_is_made_and_made_again_after_a_change_of_task_or_facts(task: Path, tmp_path: Path) -> None:
    settings = (f"TASK={task}", f"DATASET={tmp_path / 'dataset'}")
    assert "sha256 " in make("dataset", *settings)
    manifest = tmp_path / "dataset" / "manifest.json"
    assert "Term: Thing" in (tmp_path / "dataset" / "train.jsonl").read_text()
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert "You write study cards." in card and not any(word in card.lower() for word in ("medic", "clinic", "dosing"))
    later = manifest.stat().st_mtime + 10
    os.utime(manifest, (later, later))
    assert "data_gen" not in make("-n", manifest, *settings)
    for changed in (task, task.with_name("my_facts.jsonl")):
        os.utime(changed, (later + 10, later + 10))
        assert f"-m data_gen {task}" in make("-n", manifest, *settings)
        os.utime(changed, (later - 10, later - 10))
