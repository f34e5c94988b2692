"""`python -m data_gen` as a user runs it: same facts and seed, same bytes; nothing leaks; bad input gets one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract.contract import load_contract
from contract.example import SPLITS, read_splits
from data_gen.facts import read_facts
from plumbing.handover import check_outputs, read_manifest
from tests.conftest import ROOT

FACTS = ROOT / "data_gen/facts/terminology"


def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_gen", *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"} | environment
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data_gen") / "dataset"
    result = run("terminology", "--out", out, PYTHONHASHSEED="1")
    assert result.returncode == 0, result.stderr
    return out


def test_the_same_facts_and_seed_give_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert run("terminology", "--out", elsewhere, cwd=tmp_path, PYTHONHASHSEED="77", TZ="Asia/Tokyo").returncode == 0
    names = [
        path.relative_to(dataset) for path in dataset.rglob("*") if path.is_file() and path.name != "manifest.json"
    ]
    assert len(names) > 10
    assert [name for name in names if (dataset / name).read_bytes() != (elsewhere / name).read_bytes()] == []
    assert run("terminology", "--out", elsewhere, "--seed", 13).returncode == 0
    assert (dataset / "test.jsonl").read_bytes() != (elsewhere / "test.jsonl").read_bytes()


def test_a_dataset_folder_is_complete(dataset: Path) -> None:
    assert {path.name for path in dataset.iterdir()} == {
        "train.jsonl", "validation.jsonl", "test.jsonl", "concepts.json", "task.toml", "manifest.json", "certificate.json",
        "README.md", "categories_by_split.png", "lengths.png", "ATTRIBUTION.md", "licences",
    }  # fmt: skip
    manifest = read_manifest(dataset, "dataset")
    check_outputs(dataset, manifest)
    assert set(manifest["inputs"]) == {path.name for path in FACTS.glob("*.jsonl")}
    texts = [path for path in dataset.rglob("*") if path.is_file() and path.suffix != ".png"]
    assert b"\r" not in b"".join(path.read_bytes() for path in texts)
    rows = read_splits(dataset, load_contract(dataset / "task.toml"))
    assert manifest["counts"] == {split: len(rows[split]) for split in SPLITS}
    assert load_contract(dataset / "task.toml") == load_contract("terminology")


def test_no_concept_is_in_two_splits(dataset: Path) -> None:
    groups = json.loads((dataset / "concepts.json").read_text(encoding="utf-8"))
    assert list(groups) == list(SPLITS)
    facts = {fact.id: fact for fact in read_facts(FACTS, set())}
    rows = read_splits(dataset, load_contract("terminology"))
    names: dict[str, set[str]] = {}
    for split in SPLITS:
        listed = [entry["group"] for entry in groups[split]]
        assert listed == sorted(set(listed)) and all(
            entry["names"] == sorted(set(entry["names"])) for entry in groups[split]
        )
        assert set(listed) == {facts[row.id.rpartition("/")[0]].group for row in rows[split]}
        names[split] = {name for entry in groups[split] for name in entry["names"]}
        assert {row.concept.lower() for row in rows[split]} <= names[split]
    assert (
        not names["train"] & names["test"] | names["train"] & names["validation"] | names["validation"] & names["test"]
    )
    assert len(names["test"]) > 60


@pytest.mark.parametrize("count", [997, 2000])
def test_the_count_is_met_exactly(tmp_path: Path, count: int) -> None:
    result = run("terminology", "--out", tmp_path / "d", "--count", count)
    rows = [row for split in read_splits(tmp_path / "d", load_contract("terminology")).values() for row in split]
    by_category = Counter(row.category for row in rows)
    assert len(rows) == count and max(by_category.values()) - min(by_category.values()) <= 1 and len(by_category) == 5
    assert "all" in result.stdout and sum(read_manifest(tmp_path / "d", "dataset")["counts"].values()) == count


def test_show_prints_rows_and_writes_nothing(tmp_path: Path) -> None:
    result = run("terminology", "--show", 2, cwd=tmp_path)
    assert result.returncode == 0 and result.stdout.count("\nrequest: ") == 2
    assert result.stdout.count("\n\n**Clinical Relevance**: ") == 2
    assert "all" in result.stdout and list(tmp_path.iterdir()) == []


def test_adding_facts_moves_no_row(own: Path, tmp_path: Path) -> None:
    assert run(own, "--out", tmp_path / "one").returncode == 0
    add(own, *(row(n) for n in range(60, 80)))
    assert run(own, "--out", tmp_path / "two").returncode == 0
    for split in SPLITS:
        before = (tmp_path / "one" / f"{split}.jsonl").read_text().splitlines()
        after = (tmp_path / "two" / f"{split}.jsonl").read_text().splitlines()
        assert after[: len(before)] == before
    assert (tmp_path / "one/train.jsonl").read_bytes() != (tmp_path / "two/train.jsonl").read_bytes()


TASK = """name = "own"
about = "You answer."
heading = "{title}: "
separator = "\\n"
[[section]]
name = "what"
title = "What"
kind = "prose"
[[section]]
name = "signs"
title = "Signs"
kind = "items"
[[section]]
name = "sure"
title = "Sure"
kind = "choice"
options = ["yes", "no"]
[data]
facts = "own.jsonl"
requests = ["What is {concept}?", "{Concept}, please.", "{concept}?"]
[data.sections]
what = ["{Concept} is {what}"]
signs = ["{signs}"]
sure = ["{sure}"]
"""


def row(number: int) -> dict[str, Any]:
    return {
        "id": f"t/{number}",
        "category": "t",
        "concept": f"thing {number}",
        "what": "a thing.",
        "signs": ["one", "two"],
        "sure": "yes",
    }


def add(task: Path, *rows: Any) -> None:
    with (task.parent / "own.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own task, with its facts beside it."""
    path = tmp_path / "own.toml"
    path.write_text(TASK, encoding="utf-8")
    add(path, *(row(n) for n in range(60)))
    return path


def test_a_users_own_task_needs_no_python(own: Path, tmp_path: Path) -> None:
    result = run(own, "--out", tmp_path / "d")
    assert result.returncode == 0, result.stderr
    first = read_splits(tmp_path / "d", load_contract(own))["train"][0]
    assert first.response == f"What: {first.concept.capitalize()} is a thing.\nSigns:\n- one\n- two\nSure: yes"


def test_a_task_of_labels_alone_has_no_leak(tmp_path: Path) -> None:
    start, end = TASK.index("[[section]]"), TASK.index('[[section]]\nname = "sure"')
    text = (TASK[:start] + TASK[end:]).replace('what = ["{Concept} is {what}"]\nsigns = ["{signs}"]\n', "")
    (tmp_path / "labels.toml").write_text(text)
    add(
        tmp_path / "labels.toml",
        *({"id": f"t/{n}", "category": "t", "concept": f"thing {n}", "sure": "yes"} for n in range(60)),
    )
    result = run(tmp_path / "labels.toml", "--out", tmp_path / "d")
    assert result.returncode == 0 and "leak certificate: clean" in result.stdout, result.stderr


def refused(result: subprocess.CompletedProcess[str], said: str) -> None:
    assert result.returncode == 1 and said in result.stderr, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and result.stdout == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"what": None}, "own.jsonl:61: 'what' is None, expected text or a list"),
        ({"wat": "x"}, "own.jsonl:61: unknown field 'wat' (did you mean 'what'?)"),
        ({"id": "t/0"}, "own.jsonl:61: id 't/0' is also at own.jsonl:1"),
        ({"aliases": "x"}, "own.jsonl:61: 'aliases' is 'x'"),
        ({"what": "x.\nSure: no"}, "fact 't/60': section 'what': "),
        ({"signs": ["one", "Sure: no\nSure: no"]}, "fact 't/60': section 'signs': "),
        ({"signs": "one"}, "fact 't/60': section 'signs': "),
        ({"sure": "maybe"}, "fact 't/60': section 'sure': 'maybe' is none of yes, no"),
        ({"what": "\ud83d"}, "own.jsonl:61: holds half of a surrogate pair"),
        ({"keywords": [""]}, "keywords.0: '' should be non-empty"),
    ],
)
def test_a_bad_fact_gets_one_line_and_leaves_nothing(
    own: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    add(own, row(60) | change)
    refused(run(own, "--out", tmp_path / "d"), said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own.jsonl", "own.toml"]


def test_a_missing_field_names_file_and_line(own: Path, tmp_path: Path) -> None:
    add(own, {key: value for key, value in row(60).items() if key != "signs"})
    refused(run(own, "--out", tmp_path / "d"), "own.jsonl:61: missing field 'signs'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["terminolgy"], "terminolgy: no such task (shipped: "),
        (["none.toml"], "none.toml: no such task"),
        (["no\nsuch.toml"], "error: no such.toml: no such task"),
        (["terminology", "--count", 2], "no row falls into"),
        (["terminology", "--count", 199999], "requests: lower --count or add requests"),
        (["terminology", "--out", "."], "the folder you are in"),
        (["terminology", "--teacher", "gpt", "--out", "d"], "--teacher gpt: expected ollama:MODEL"),
        (["terminology", "--teacher", "ollama:x"], "--teacher needs the dataset folder: name one with --out"),
        (["terminology", "--push", "me/it"], "--push needs the dataset folder"),
        (["terminology", "--out", "d", "--private"], "--private needs --push OWNER/NAME"),
    ],
)
def test_a_mistaken_call_gets_one_line(tmp_path: Path, arguments: list[object], said: str) -> None:
    refused(run(*arguments, cwd=tmp_path), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [["terminology", "--count", "0"], ["terminology", "--count", "x"], [], ["terminology", "--what"]]
)
def test_a_call_that_cannot_be_parsed_ends_with_1(arguments: list[str]) -> None:
    result = run(*arguments)  # 2 is kept for a measurement that misses its gate
    assert result.returncode == 1 and "usage: python -m data_gen" in result.stderr and "Traceback" not in result.stderr


def test_too_few_facts_say_what_would_do(own: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps(row(0)) + "\n")
    refused(run(own, "--out", tmp_path / "d"), "of 1 facts: add facts, try another --seed")
    (tmp_path / "own.jsonl").write_text("")
    refused(run(own, "--out", tmp_path / "d"), "own.jsonl: does not hold a fact")


def test_a_folder_of_the_users_own_is_not_overwritten(own: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    refused(run(own, "--out", tmp_path / "mine"), "mine: holds other files and no manifest.json of ours")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    refused(run(own, "--out", own), "own.toml: is a file")


def test_a_second_run_replaces_the_first(own: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(own, "--out", tmp_path / "d").returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "own.jsonl", "own.toml"]


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell's ulimit")
def test_a_disk_that_fills_up_gets_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    # No file over 512 kB: the write fails with an OSError in the middle of train.jsonl, as on a full disk.
    command = f'ulimit -f 1000; exec "{sys.executable}" -m data_gen terminology --out "{tmp_path}/d"'
    result = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.count("\n") == 1 and "File too large" in result.stderr
    assert list(tmp_path.iterdir()) == []
