"""`python -m data_gen.lint` finds every planted fault and no other; what it passes can be read; the facts are clean."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.facts import read_facts
from data_gen.lint_facts import ANY_FACT, SHIPPED, TEACHING_FACT, lint, read
from plumbing.errors import UserError
from tests import strategies  # noqa: F401  the hypothesis profile
from tests.conftest import ROOT
from tests.data_gen import test_lint_texts
from tests.data_gen.test_lint_texts import CLEAN, CLINICAL, DEFINITION, MECHANISM, findings, more, write

TEXTS = {"definition", "mechanism", "clinical"}
OTHER: dict[str, Any] = {  # a second clean fact
    "id": "terms/pus",
    "category": "terms",
    "concept": "pus",
    "definition": "Pus is a thick yellow liquid of dead white cells, bacteria and debris.",
    "mechanism": "White cells gather where bacteria enter, and their enzymes melt the tissue around them. Dying cells, "
    "microbes and melted tissue then pool in a hollow, which a wall of young scar tissue soon shuts off.",
    "clinical": "A collection of pus is called an abscess, and it seldom heals before it has been drained. Fever and a "
    "tender lump that gives way under the finger point to it. Culture shows which microbes live there.",
    "keywords": ["bacteria", "abscess", "drained"],
    "sources": [],
    "reviewed": False,
}
CARD = {  # of a user's own task
    "id": "1",
    "category": "t",
    "concept": "thing",
    "what": "a thing, 5 mg daily, for you, in 40 % of all",
    "signs": ["one", "two"],
    "sure": "yes",
}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in CLEAN.items() if name != key}


def source(**change: Any) -> dict[str, Any]:
    return CLEAN | {"sources": [CLEAN["sources"][0] | change]}


# rule, the faulty lines, what the finding must say
PLANTED: list[tuple[str, list[Any], str]] = [
    ("unreadable", ["{"], "not JSON: "),
    ("unreadable", ['["edema"]'], "not a JSON object; write one JSON object a line"),
    ("unreadable", ['{"id": "\\udc00"}'], "half of a surrogate pair"),
    *[("field", [without(name)], f"missing field '{name}'") for name in sorted(CLEAN.keys() - {"aliases"})],
    ("field", [CLEAN | {"defintion": "Edema."}], "unknown field 'defintion' (did you mean 'definition'?)"),
    ("field", [CLEAN | {"keywords": "fluid"}], "'keywords' is 'fluid', "),
    ("field", [CLEAN | {"reviewed": "no"}], "'reviewed' is 'no', "),
    ("field", [CLEAN | {"clinical": None}], "'clinical' is None, expected text or a list"),
    ("field", [CLEAN | {"clinical": [CLINICAL]}], "'clinical' is a list; write one text"),
    ("same-id", [CLEAN, OTHER | {"id": "terms/edema"}], "'terms/edema' is also at "),
    ("same-name", [CLEAN, OTHER | {"aliases": ["Dropsy"]}], "say which is meant: same_as = 'edema'"),
    ("same-name", [CLEAN, OTHER | {"aliases": ["Edemas"]}], "'edemas' is also a name of "),
    ("same-name", [CLEAN, OTHER | {"same_as": "Dropsy"}], "'dropsy' is also a name of "),
    (
        "same-name",
        [CLEAN | {"same_as": "swelling"}, OTHER | {"same_as": "Swellings"}],
        "'swellings' is also a name of ",
    ),
    ("same-name", [CLEAN | {"aliases": ["Edema"]}], "'edema' appears twice in the fact; keep one"),
    ("reviewed", [CLEAN | {"reviewed": True}], "no field names the reviewer; write false"),
    ("characters", [source(name="SYMP\u2011x")], "'sources': U+2011 NON-BREAKING HYPHEN"),
    ("id", [CLEAN | {"id": "terms/Edema"}], "'terms/Edema'; write 'terms/slug'"),
    ("id", [CLEAN | {"id": "edema"}], "'edema'; write 'terms/slug'"),
    ("category", [CLEAN | {"id": "names/edema", "category": "names"}], "'names' in the file of 'terms'"),
    (
        "source",
        [CLEAN | {"sources": [{"name": "X", "id": "1", "licence": "MIT"}]}],
        "'X' has name, id, licence; give it",
    ),
    ("source", [source(id="")], "give it name, id, url and licence"),
    ("source", [source(page="3")], "has name, id, url, licence, page; give it"),
    ("licence", [source(licence="CC-BY-SA-4.0")], "'CC-BY-SA-4.0' of source 'Symptom Ontology' is not allowed; use"),
    ("licence", [source(licence="CC-BY-NC-4.0")], "'CC-BY-NC-4.0' of source 'Symptom Ontology' forbids"),
    ("licence", [source(licence="CC BY-ND 4.0")], "forbids commercial use or changes"),
    ("licence", [source(licence="free for non-commercial use")], "forbids commercial use or changes"),
    ("closed-source", [source(name="SNOMED CT")], "'SNOMED' in source 'SNOMED CT'"),
    ("closed-source", [source(id="C0013604")], "'C0013604' in source"),
    ("closed-source", [source(name="MeSH", url="https://uts.nlm.nih.gov/mesh")], "in source 'MeSH'"),
    ("same-text", [CLEAN, OTHER | {"clinical": CLINICAL, "keywords": ["pus", "white", "melt"]}], "reword one"),
    ("same-text", [more("Swelling of one leg alone suggests a clot in a deep vein.")], "reword one"),
]


@pytest.mark.parametrize(("rule", "rows", "said"), PLANTED, ids=[f"{n}-{p[0]}" for n, p in enumerate(PLANTED)])
def test_a_planted_fault_is_found_by_its_rule_alone(tmp_path: Path, rule: str, rows: list[Any], said: str) -> None:
    found = findings(tmp_path, *rows)
    assert said in "\n".join(map(str, found)) and {finding.rule for finding in found} == {rule}


def test_every_rule_has_a_planted_fault() -> None:
    planted = {rule for rule, _, _ in [*PLANTED, *test_lint_texts.PLANTED]} | {"expansion"}
    assert planted == ANY_FACT.keys() | TEACHING_FACT.keys()


def test_clean_facts_have_no_finding(tmp_path: Path) -> None:
    assert findings(tmp_path, CLEAN, OTHER) == []
    assert findings(tmp_path, CLEAN, OTHER | {"same_as": "edema", "aliases": ["Dropsy"]}) == [], (
        "one concept, two names"
    )
    allowed = ("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "MIT", "US government work")
    assert [findings(tmp_path, source(licence=licence)) for licence in allowed] == [[]] * 5


def test_a_users_own_fact_need_only_be_sound_text(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", CARD, CARD | {"id": "2", "concept": "bone", "definition": "swelling of it"})
    assert lint(read([path])) == []
    write(
        path, CARD | {"signs": ["one", ["a cough cough"]], "sure": "an  yes", "pairs": {"q": "a ulcer"}, "what": None}
    )
    assert [finding.rule for finding in lint(read([path]))] == ["field", "field", "seam", "blanks", "article"]


def test_two_of_the_three_texts_make_a_teaching_fact_anywhere(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", CARD | {"definition": DEFINITION, "mechanism": MECHANISM})
    found = [finding.found for finding in lint(read([path])) if finding.rule == "field"]
    assert [text.partition(";")[0] for text in found] == [
        f"missing field '{name}'" for name in ("clinical", "keywords", "sources", "reviewed")
    ]
    assert lint(read([write(path, CLEAN | {"category": "mine", "id": "mine/edema", "mnemonic": "wet"})])) == []


def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_gen.lint", *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)


def test_shipped_facts_are_clean() -> None:
    result = run()
    assert (result.stdout, result.returncode) == ("720 facts, 0 findings\n", 0)
    assert run(SHIPPED / "abbreviations.jsonl", SHIPPED).stdout == result.stdout, "a file named twice is read once"


def test_every_fault_of_every_file_is_printed(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", CLEAN, "{", more("The the wall is a abscess."))
    write(tmp_path / "b.jsonl", "[]", OTHER | {"id": "terms/edema"})
    result = run(".", cwd=tmp_path)
    lines = [line.split(": ")[:2] for line in result.stdout.splitlines()]
    assert lines == [
        ["a.jsonl:2 (no id)", "unreadable"],
        ["a.jsonl:3 terms/edema", "seam"],
        ["a.jsonl:3 terms/edema", "article"],
        ["a.jsonl:3 terms/edema", "same-id"],
        *[["a.jsonl:3 terms/edema", "same-text"]] * 6,
        ["b.jsonl:1 (no id)", "unreadable"],
        ["b.jsonl:2 terms/edema", "same-id"],
        ["5 facts, 12 findings in 4 facts"],
    ]
    assert result.returncode == 1 and result.stderr == ""


def test_a_finding_is_one_line_of_visible_characters(tmp_path: Path) -> None:
    write(tmp_path / "own.jsonl", CARD | {"id": "a\nb", "what": "(\x1b[2J\u202e"})
    result = run("own.jsonl", cwd=tmp_path)
    assert result.stdout.splitlines()[0] == (
        "own.jsonl:1 a\\nb: blanks: 'id': 'a\\nb': a space at an end, two in a row, a tab or a new line; write single spaces"
    )
    assert "'(\\x1b[2J\\u202e'" in result.stdout and result.stdout.count("\n") == 5


def test_a_character_that_the_terminal_lacks_is_printed_all_the_same(tmp_path: Path) -> None:
    write(tmp_path / "own.jsonl", CARD | {"id": "\u0444/1", "what": "the the \u0444"})
    result = run("own.jsonl", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert "own.jsonl:1 \\u0444/1: seam: " in result.stdout and result.returncode == 1 and result.stderr == ""


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [("none.jsonl", None, "none.jsonl: no facts there (expected a .jsonl file, or a folder of them)"),
     (".", None, ".: no facts there"), ("empty.jsonl", b"", "empty.jsonl: does not hold a fact"),
     ("latin.jsonl", b"\xff", "latin.jsonl: not UTF-8 text")],
)  # fmt: skip
def test_a_path_without_facts_gets_one_line(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run(name, cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.startswith(f"error: {said}") and result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_call_that_cannot_be_parsed_ends_with_1() -> None:
    result = run("--what")
    assert result.returncode == 1 and "usage: python -m data_gen.lint" in result.stderr


@given(
    st.sampled_from([row for _, row, _ in test_lint_texts.PLANTED]), st.randoms(use_true_random=False), st.booleans()
)
def test_facts_are_linted_and_not_how_json_spells_them(
    tmp_path_factory: pytest.TempPathFactory, faulty: dict[str, Any], order: random.Random, ascii_only: bool
) -> None:
    """A clean fact stays clean, and a faulty one keeps its findings, however JSON orders and escapes it."""
    folder = tmp_path_factory.mktemp("lint")
    clean_again, faulty_again = (
        json.dumps(dict(order.sample(list(row.items()), len(row))), ensure_ascii=ascii_only, separators=(",", ":"))
        for row in (CLEAN, faulty)
    )
    assert findings(folder, clean_again, OTHER) == []
    before, after = findings(folder, faulty), findings(folder, faulty_again)
    assert before and sorted(map(str, before)) == sorted(map(str, after))


TEXT = st.text(st.sampled_from("aAeI \u2019.,(){}%1\n")) | st.text(st.characters(codec="utf-8"))
VALUE = st.recursive(
    TEXT | st.none() | st.booleans() | st.floats(), lambda value: st.lists(value) | st.dictionaries(TEXT, value)
)


@given(st.lists(st.dictionaries(st.sampled_from([*CLEAN, "expansion", "same_as", "what"]), VALUE), max_size=2))
@settings(max_examples=50)
def test_no_row_breaks_lint_and_what_it_passes_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("lint")
    found = findings(folder, CLEAN, *(OTHER | change for change in changes))
    try:
        read_facts(folder, TEXTS)
    except UserError as error:
        assert found, error
