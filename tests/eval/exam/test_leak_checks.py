"""What would make any figure worthless is found before the run, and the rows are named; the shipped data has none."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contract.contract import load_contract
from contract.example import Example, read_splits
from eval.exam.conditions import CONDITIONS, conversation, few_shots
from eval.exam.leak_checks import check_dataset, check_prompts, concept_faults, read_concepts
from plumbing.errors import UserError
from plumbing.handover import read_manifest, write_manifest
from tests.eval.test_adherence import Outcome, recording
from tests.eval.test_adherence import data as data  # the fixture

CONTRACT = load_contract("terminology")
SPEC = CONTRACT.system_prompt()


@pytest.fixture(scope="module")
def splits(data: Path) -> dict[str, list[Example]]:
    return read_splits(data, CONTRACT)


@pytest.fixture(scope="module")
def row(splits: dict[str, list[Example]]) -> Example:
    return splits["test"][4]


@pytest.mark.parametrize("shots", [0, 50])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_shipped_data_is_fair_in_every_condition(
    condition: str, shots: int, splits: dict[str, list[Example]]
) -> None:
    for split in ("test", "validation"):
        told = few_shots(splits["train"], splits[split], shots)
        check_prompts(CONTRACT, [(e, conversation(condition, SPEC, told, e)) for e in splits[split]])


def refused(row: Example, *turns: str) -> str:
    with pytest.raises(UserError) as caught:
        check_prompts(CONTRACT, [(row, [{"role": "user", "content": turn} for turn in turns])])
    assert f"'{row.id}'" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_prompt_that_tells_the_answer_is_refused(row: Example) -> None:
    said = refused(row, row.request, row.response)
    assert all(f"the expected {name}" in said for name in ("definition", "explanation", "clinical_relevance"))
    assert "expected note" not in said, "the fixed text is told on purpose"


def test_a_long_part_or_another_dress_does_not_hide_it(row: Example) -> None:
    text = str(row.record["explanation"])
    assert "explanation" in refused(row, " ".join(text.split()[3:21]))
    assert "explanation" in refused(row, text.upper().replace(" ", "\n ").replace(",", ""))
    few = " ".join(text.split()[3:12])
    check_prompts(CONTRACT, [(row, [{"role": "user", "content": few}])])


def test_a_whole_short_section_is_found(row: Example) -> None:
    short = dataclasses.replace(row, record=row.record | {"definition": "It is a small green frog."})
    assert "definition: 'it is a small green frog'" in refused(short, "Say: it is a small green frog")
    check_prompts(CONTRACT, [(short, [{"role": "user", "content": "Is it a small green dog?"}])])


def test_an_answer_that_repeats_the_request_is_refused(row: Example) -> None:
    answer = dataclasses.replace(row, response=f"You asked: {row.request}. " + row.response)
    assert "repeats the request" in refused(answer, answer.request)
    assert "repeats the system prompt" in refused(dataclasses.replace(row, response=SPEC + row.response), "Hi")
    name = dataclasses.replace(row, request=row.concept)
    check_prompts(CONTRACT, [(name, [{"role": "user", "content": name.request}])])


def test_every_row_is_named(splits: dict[str, list[Example]]) -> None:
    rows = splits["test"][:3]
    with pytest.raises(UserError) as caught:
        check_prompts(CONTRACT, [(e, [{"role": "user", "content": str(e.record["definition"])}]) for e in rows])
    assert all(f"'{e.id}'" in str(caught.value) for e in rows)


def test_rows_that_the_manifest_does_not_count(data: Path, splits: dict[str, list[Example]]) -> None:
    manifest = read_manifest(data, "dataset")
    check_dataset(data, manifest, splits)
    n = len(splits["test"])
    with pytest.raises(UserError, match=rf"test.jsonl has {n - 1} rows, its manifest counts {n}"):
        check_dataset(data, manifest, splits | {"test": splits["test"][1:]})
    with pytest.raises(UserError, match=r"3 faults: .*counts none"):
        check_dataset(data, manifest | {"counts": {}}, splits)  # type: ignore[arg-type]


def test_a_concept_on_both_sides_is_named(data: Path, splits: dict[str, list[Example]], row: Example) -> None:
    concepts = read_concepts(data / "concepts.json")
    assert concept_faults(concepts, splits) == concept_faults({}, splits) == []
    stray = dataclasses.replace(row, id="stray", concept=row.concept.upper())
    both = splits | {"train": [*splits["train"], stray]}
    assert any("'stray'" in fault and "does not list" in fault for fault in concept_faults(concepts, both))
    found = concept_faults({}, both)
    assert len(found) == 1 and f"'{row.concept.casefold()}' is in train and in test" in found[0]
    assert "'stray'" in found[0] and row.id.rpartition("/")[0] in found[0]


def test_another_name_of_a_concept_on_both_sides_is_found(data: Path, splits: dict[str, list[Example]]) -> None:
    concepts = read_concepts(data / "concepts.json")
    concepts["train"][0]["names"].append(concepts["test"][0]["names"][0].upper())
    assert "is in train and in test" in " ".join(concept_faults(concepts, splits))


def test_concepts_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    assert read_concepts(tmp_path / "concepts.json") == {}
    for text in ("{", "[]", '{"train": []}', '{"train": [1], "validation": [], "test": []}'):
        (tmp_path / "concepts.json").write_text(text)
        with pytest.raises(UserError, match="not the concepts of a dataset"):
            read_concepts(tmp_path / "concepts.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("leak", "the prompt contains the expected definition"),
        ("count", "its manifest counts"),
        ("meet", "is in train"),
    ],
)
def test_the_run_stops_before_anything_is_asked(  # type: ignore[no-untyped-def]
    change: str, words: str, data, splits, tmp_path, monkeypatch, capsys
) -> None:
    folder = shutil.copytree(data, tmp_path / "dataset")
    rows: dict[str, list[dict[str, Any]]] = {name: [json.loads(e.to_json()) for e in splits[name]] for name in splits}
    if change == "leak":
        rows["test"][0]["request"] += "\n" + rows["test"][0]["record"]["definition"]
    if change == "count":
        rows["test"].pop()
    if change == "meet":
        (folder / "concepts.json").unlink()
        rows["train"].append(rows["test"][0] | {"id": "stray"})
    for name, table in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in table))
    counts = {n: len(t) + (change == "count" and n == "test") for n, t in rows.items()}
    write_manifest(folder, "dataset", {}, {}, counts)
    path = recording(tmp_path / "r.jsonl", splits["test"])
    done = Outcome(monkeypatch, capsys, "--data", folder, "--replay", path, "--out", tmp_path / "report")
    assert done.is_one_line("not a fair measure", words) and not (tmp_path / "report").exists()


def test_the_models_own_system_text_is_a_prompt_too(row: Example) -> None:
    telling = dataclasses.replace(CONTRACT, about=str(row.record["definition"]))
    with pytest.raises(UserError, match="the prompt contains the expected definition"):
        check_prompts(telling, [(row, [{"role": "user", "content": row.request}])])
