"""The shipped facts hold together; bad rows get one line that names file and line."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_gen.facts import Fact, fact_files, read_facts
from plumbing.errors import UserError
from tests.conftest import ROOT

SHIPPED = ROOT / "data_gen/facts/terminology"
TEXTS = {"definition", "mechanism", "clinical"}
ROW: dict[str, Any] = {
    "id": "terms/edema",
    "category": "terms",
    "concept": "edema",
    "aliases": ["oedema"],
    "definition": "Edema is swelling.",
    "mechanism": "Fluid leaks.",
    "clinical": "Ankles swell.",
    "keywords": ["fluid"],
    "sources": [],
    "reviewed": False,
}


@pytest.fixture(scope="module")
def shipped() -> list[Fact]:
    return read_facts(SHIPPED, TEXTS)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")
    return path


def test_sixty_concepts_and_more_in_each_of_five_categories(shipped: list[Fact]) -> None:
    counts = Counter(fact.category for fact in shipped)
    assert set(counts) == {path.stem for path in fact_files(SHIPPED)} and len(counts) == 5
    assert min(counts.values()) >= 60
    assert not any(fact.reviewed for fact in shipped)


def test_every_source_is_attributed_and_its_licence_text_is_here(shipped: list[Fact]) -> None:
    table = re.findall(r"^\| (.+?) \|.*\| (\S+) \| \[(licences/\S+)\]", (SHIPPED / "ATTRIBUTION.md").read_text(), re.M)
    named = {(source["name"], source["licence"]) for fact in shipped for source in fact.sources}
    assert named == {(name, licence) for name, licence, _ in table}
    assert all((SHIPPED / text).stat().st_size > 1000 for _, _, text in table)
    wanted = {"name", "id", "url", "licence"}
    assert [
        fact.id for fact in shipped for source in fact.sources if set(source) != wanted or not all(source.values())
    ] == []


def test_an_abbreviation_and_what_it_stands_for_are_one_group(shipped: list[Fact]) -> None:
    by_name: dict[str, set[str]] = {}
    for fact in shipped:
        for name in fact.names:
            by_name.setdefault(name, set()).add(fact.group)
    assert {name: groups for name, groups in by_name.items() if len(groups) > 1} == {}
    pairs = [fact for fact in shipped if fact.expansion.lower() in {other.concept.lower() for other in shipped}]
    assert len(pairs) >= 5, "the facts hold no abbreviation beside its expansion: this test would prove nothing"
    same = [fact for fact in shipped if fact.same_as]
    named = {name.lower() for fact in shipped for name in (fact.concept, fact.expansion)}
    assert len(same) > 5 and [fact.id for fact in same if fact.same_as.lower() not in named] == []


# (row, what the one line must say)
BAD = [
    ({k: v for k, v in ROW.items() if k != "mechanism"}, "facts.jsonl:2: missing field 'mechanism'"),
    ({k: v for k, v in ROW.items() if k != "id"}, "facts.jsonl:2: missing field 'id'"),
    (ROW | {"defintion": "x"}, "facts.jsonl:2: unknown field 'defintion' (did you mean 'definition'?)"),
    (ROW | {"id": 3}, "facts.jsonl:2: 'id' is 3, "),
    (ROW | {"concept": " "}, "facts.jsonl:2: 'concept' is empty"),
    (ROW | {"definition": ""}, "facts.jsonl:2: 'definition' is '', expected text or a list"),
    (ROW | {"definition": "  "}, "facts.jsonl:2: 'definition' is '  ', expected text or a list"),
    (ROW | {"definition": None}, "facts.jsonl:2: 'definition' is None, expected text or a list"),
    (ROW | {"clinical": 7}, "facts.jsonl:2: 'clinical' is 7, expected text or a list"),
    (ROW | {"aliases": "oedema"}, "facts.jsonl:2: 'aliases' is 'oedema', "),
    (ROW | {"keywords": ["a", 1]}, "facts.jsonl:2: 'keywords' is ['a', 1], "),
    (ROW | {"expansion": ["x"]}, "facts.jsonl:2: 'expansion' is ['x'], "),
    (ROW | {"same_as": None}, "facts.jsonl:2: 'same_as' is None, "),
    (ROW | {"sources": ["DOID"]}, "facts.jsonl:2: 'sources' is ['DOID']"),
    (ROW | {"reviewed": "no"}, "facts.jsonl:2: 'reviewed' is 'no', "),
    (ROW | {"id": "first"}, "facts.jsonl:2: id 'first' is also at facts.jsonl:1"),
    (ROW | {"aliases": ["Shock"]}, "facts.jsonl:2: 'shock' is also a name of facts.jsonl:1"),
    (["edema"], "facts.jsonl:2: not a JSON object"),
    (None, "facts.jsonl:2: not a JSON object"),
]


@pytest.mark.parametrize(("bad", "said"), BAD, ids=range(len(BAD)))
def test_a_bad_row_names_file_and_line(tmp_path: Path, bad: Any, said: str) -> None:
    path = write(tmp_path / "facts.jsonl", ROW | {"id": "first", "concept": "shock", "aliases": []}, bad)
    with pytest.raises(UserError) as caught:
        read_facts(path, TEXTS)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "does not hold a fact"), (b"{\n", "facts.jsonl:1: not JSON"), (b"\n\n", "facts.jsonl:2: not JSON"),
     (b"\xff", "facts.jsonl: not UTF-8 text"), (b'{"id": "\\udc00"}', "facts.jsonl:1: holds half of a surrogate pair")],
)  # fmt: skip
def test_a_file_that_holds_no_facts(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "facts.jsonl").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_facts(tmp_path, TEXTS)
    assert said in str(caught.value)


def test_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROW | {"id": 1}, ROW)
    write(tmp_path / "b.jsonl", ROW | {"id": "x", "concept": "sepsis", "aliases": [], "extra": 1}, ROW)
    with pytest.raises(
        UserError, match=r"3 faults: a.jsonl:1: .*; b.jsonl:1: .*; b.jsonl:2: id 'terms/edema' is also at a.jsonl:2"
    ):
        read_facts(tmp_path, TEXTS)
    write(tmp_path / "c.jsonl", *(ROW | {"id": 1} for _ in range(20)))
    with pytest.raises(UserError, match=r"11 faults: .*; and 13 more$"):
        read_facts(tmp_path, TEXTS)


def test_missing_facts_say_what_was_wanted(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(UserError, match=r"no facts there \(expected a .jsonl file, or a folder of them\)"):
            read_facts(path, TEXTS)


def test_a_line_separator_in_a_text_ends_no_row(tmp_path: Path) -> None:
    path = write(tmp_path / "facts.jsonl", ROW | {"definition": "a\u2028b\x85c"})
    assert read_facts(path, TEXTS)[0].texts["definition"] == "a\u2028b\x85c"


def test_names_and_group(tmp_path: Path) -> None:
    row = ROW | {
        "concept": "ABG",
        "aliases": ["Blood gas"],
        "expansion": "Arterial Blood Gas",
        "same_as": "Gas analysis",
    }
    fact = read_facts(write(tmp_path / "facts.jsonl", row), TEXTS)[0]
    assert fact.names == {"abg", "blood gas", "arterial blood gas", "gas analysis"} and fact.group == "gas analysis"
    assert Fact("i", "c", "ABG", expansion="Arterial Blood Gas").group == "arterial blood gas"
    assert Fact("i", "c", "ABG").group == "abg"
