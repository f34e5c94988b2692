"""Facts + templates -> rows: exact quotas, different requests, and every fault of a task's [data] table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract.contract import Contract, load_contract
from data_gen.compose.rows import ROWS_A_CONCEPT, compose, fact_fields, quotas, rows_each
from data_gen.compose.task_data import TaskData, load_task_data
from data_gen.facts import Fact
from plumbing.errors import UserError

CONTRACT = load_contract("terminology")
WORDS = "one two three four five six seven eight nine ten eleven."
FACT = Fact(
    "terms/edema",
    "terms_of_art",
    "edema",
    texts={"definition": WORDS, "mechanism": WORDS, "clinical": WORDS, "list": ["a"]},
)
SECTIONS = {
    "definition": ["{definition}"],
    "explanation": ["{mechanism}"],
    "clinical_relevance": ["{Clinical}", "So: {clinical}"],
}
DATA = TaskData("facts", ["What is {concept}?", "{Concept}!", "Of {category}: {concept}"], SECTIONS)


def test_rows_follow_the_templates() -> None:
    rows = compose(CONTRACT, DATA, FACT, 3, seed=0)
    assert {row.request for row in rows} == {"What is edema?", "Edema!", "Of terms of art: edema"}
    assert [row.id for row in rows] == ["terms/edema/request-1", "terms/edema/request-2", "terms/edema/request-3"]
    frames = {row.record["clinical_relevance"] for seed in range(9) for row in compose(CONTRACT, DATA, FACT, 3, seed)}
    assert frames == {"O" + WORDS[1:], "So: " + WORDS}
    assert all(CONTRACT.read(row.response).record == row.record for row in rows)


STYLES = {"plain": ["What is {concept}?", "{Concept}!"], "rough": ["{concept}", "{concept} ({expansion})"]}


def test_styles_take_turns_and_facts_begin_with_different_ones() -> None:
    data = TaskData("facts", STYLES, SECTIONS)
    firsts = set()
    for number in range(20):
        fact = Fact(f"terms/{number}", "terms", "edema", expansion="x", texts=FACT.texts)
        styles = [row.id.split("/")[-1] for row in compose(CONTRACT, data, fact, 4, 0)]
        assert styles in (["plain-1", "rough-1", "plain-2", "rough-2"], ["rough-1", "plain-1", "rough-2", "plain-2"])
        firsts.add(styles[0])
    assert firsts == {"plain-1", "rough-1"}


def test_a_template_is_used_only_where_the_fact_can_fill_it() -> None:
    data = TaskData("facts", STYLES, SECTIONS | {"definition": ["{definition}", "{definition} ({expansion})"]})
    rows = [row for seed in range(20) for row in compose(CONTRACT, data, FACT, 3, seed)]
    assert {row.request for row in rows} == {"What is edema?", "Edema!", "edema"}
    assert {row.record["definition"] for row in rows} == {WORDS}
    with pytest.raises(UserError, match="fact 'terms/edema': 4 rows for each fact but 3 requests"):
        compose(CONTRACT, data, FACT, 4, 0)
    data = TaskData("facts", STYLES, SECTIONS | {"definition": ["{definition} ({expansion})"]})
    with pytest.raises(UserError, match="no template of section 'definition' can be filled from it; add the field"):
        compose(CONTRACT, data, FACT, 1, 0)


def test_an_ambiguous_abbreviation_tells_its_other_senses_in_every_row() -> None:
    sections = SECTIONS | {"definition": ["{definition}", "{definition} {Concept} also means {other_senses}."]}
    data = TaskData("facts", DATA.requests, sections)
    fact = Fact("terms/ed", "terms", "ED", other_senses=("one", "two", "three"), texts=FACT.texts)
    rows = [row for seed in range(9) for row in compose(CONTRACT, data, fact, 3, seed)]
    assert {row.record["definition"] for row in rows} == {f"{WORDS} ED also means one, two or three."}
    assert {row.record["definition"] for row in compose(CONTRACT, data, FACT, 3, 0)} == {WORDS}


@pytest.mark.parametrize(
    ("concept", "definition", "mid"),
    [
        ("edema", "Edema is swelling.", "edema is swelling."),
        ("Crohn disease", "Crohn disease is an inflammation.", "Crohn disease is an inflammation."),
        ("abscess", "An abscess is a collection of pus.", "an abscess is a collection of pus."),
        ("AAA", "AAA stands for a widening.", "AAA stands for a widening."),
        ("pH", "PH is a scale.", "pH is a scale."),
        ("edema", "Swelling is edema.", None),  # nobody knows whether the first word is a name
    ],
)
def test_a_text_in_the_middle_of_a_sentence_keeps_its_capitals(concept: str, definition: str, mid: str | None) -> None:
    fields = fact_fields(DATA, Fact("t/x", "t", concept, texts={"definition": definition}))
    assert fields.get("definition_mid") == mid and fields["Definition"] == definition


@pytest.mark.parametrize(
    ("definition", "said"),
    [
        ("An edema is x.", "an edema"),
        ("The edema is x.", "the edema"),
        ("Edema is x.", "edema"),
        ("A edematous x", "edema"),
    ],
)
def test_a_concept_is_asked_for_with_the_article_of_its_definition(definition: str, said: str) -> None:
    assert fact_fields(DATA, Fact("t/x", "t", "edema", texts={"definition": definition}))["a_concept"] == said


def test_a_word_with_capitals_inside_begins_a_sentence_as_it_is() -> None:
    fields = fact_fields(DATA, Fact("t/hcg", "t", "hCG", texts={"definition": "hCG stands for a hormone."}))
    assert (
        fields["Concept"] == "hCG" and fields["Definition"] == fields["definition_mid"] == "hCG stands for a hormone."
    )


def test_a_category_is_called_what_the_task_calls_it() -> None:
    data = TaskData("facts", ["{Category} {category}: {concept}"], SECTIONS, {"terms_of_art": "medical term"})
    assert compose(CONTRACT, data, FACT, 1, 0)[0].request == "Medical term medical term: edema"


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    assert compose(CONTRACT, DATA, FACT, 3, 1) == compose(CONTRACT, DATA, FACT, 3, 1)
    assert len({tuple(row.request for row in compose(CONTRACT, DATA, FACT, 3, seed)) for seed in range(9)}) > 1


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (1.0, 400, 400), (0.5, 150, 250)])
def test_the_system_prompt_is_carried_by_its_share(share: float, low: int, high: int) -> None:
    data = TaskData("facts", DATA.requests, SECTIONS, system_share=share)
    facts = [Fact(f"terms/{n}", "terms", "edema", texts=FACT.texts) for n in range(400)]
    systems = [compose(CONTRACT, data, fact, 1, 0)[0].system for fact in facts]
    assert set(systems) <= {"", CONTRACT.system_prompt()} and low <= sum(map(bool, systems)) <= high


def test_more_rows_than_requests_are_refused() -> None:
    with pytest.raises(UserError, match="4 rows for each fact but 3 requests: lower --count or add requests"):
        compose(CONTRACT, DATA, FACT, 4, 0)


@pytest.mark.parametrize(
    "value", ["Too short.", "x " * 200, f"{WORDS}\n\n**Note**: forged", f"{WORDS}  {WORDS}", ["a"]]
)
def test_a_value_that_the_contract_refuses_names_the_fact(value: Any) -> None:
    fact = Fact("terms/edema", "terms", "edema", texts=FACT.texts | {"definition": value})
    with pytest.raises(UserError, match=r"^fact 'terms/edema': section 'definition': "):
        compose(CONTRACT, DATA, fact, 1, 0)


@pytest.mark.parametrize("template", ["{list} and more", "so {list}", "{list}{list}"])
def test_a_list_stands_alone_in_its_template(template: str) -> None:
    with pytest.raises(UserError, match="names a field that holds a list"):
        compose(CONTRACT, TaskData("facts", ["{concept}"], SECTIONS | {"definition": [template]}), FACT, 1, 0)


@pytest.mark.parametrize(
    ("count", "wanted"), [(10, {"a": 4, "b": 3, "c": 3}), (3, {"a": 1, "b": 1, "c": 1}), (1, {"a": 1, "b": 0, "c": 0})]
)
def test_quotas_are_exact(count: int, wanted: dict[str, int]) -> None:
    assert quotas(["c", "b", "a"], count) == wanted


@pytest.mark.parametrize("count", [1, 7, 100, 101, 1999])
def test_rows_meet_the_category_quotas_exactly(count: int) -> None:
    facts = [
        Fact(f"{name}/{n}", name, f"{name}{n}") for name, size in (("a", 3), ("b", 17), ("c", 40)) for n in range(size)
    ]
    rows = rows_each(facts, count)
    by_category = Counter({name: sum(rows[f.id] for f in facts if f.category == name) for name in "abc"})
    assert dict(by_category) == quotas(["a", "b", "c"], count) and sum(rows.values()) == count
    for name in "abc":
        each = [rows[fact.id] for fact in facts if fact.category == name]
        assert max(each) - min(each) <= 1
    assert set(rows_each(facts, None).values()) == {ROWS_A_CONCEPT}


TASK = """name = "t"
about = "You answer."
heading = "{title}: "
separator = "\\n"
[[section]]
name = "a"
title = "A"
kind = "prose"
[[section]]
name = "note"
title = "Note"
kind = "fixed"
text = "Ask."
[data]
facts = "facts"
requests = ["What is {concept}?"]
[data.sections]
a = ["{definition}"]
"""


def load(tmp_path: Path, text: str) -> tuple[Contract, TaskData, Path]:
    (tmp_path / "my.toml").write_text(text, encoding="utf-8")
    return load_task_data(str(tmp_path / "my.toml"))


def test_a_task_names_what_its_facts_must_hold(tmp_path: Path) -> None:
    contract, data, facts = load(
        tmp_path, TASK.replace("What is {concept}?", "What is {concept}, {Expansion}, {category}? {hint_mid} {Tip}")
    )
    assert data.texts() == {"definition", "hint", "tip"}
    assert contract.name == "t" and facts == (tmp_path / "facts").resolve()


BAD = [
    ("[data]", "[dada]", ["unknown key 'dada' (did you mean 'data'?)"]),
    (TASK[TASK.index("[data]") :], "", ["no [data] table: it must say how examples are composed"]),
    ("requests", "request", ["unknown key 'request' (did you mean 'requests'?)", "missing key 'requests'"]),
    ('["What is {concept}?"]', "[]", ["'requests' is empty"]),
    ('["What is {concept}?"]', '"What?"', ["'requests' is 'What?', "]),
    ('["What is {concept}?"]', "{}", ["'requests' is empty"]),
    ('["What is {concept}?"]', "{ plain = [] }", ["style 'plain' has no requests"]),
    ('["What is {concept}?"]', '{ "a/b" = ["x"] }', ["style 'a/b': expected a name of letters"]),
    ('["What is {concept}?"]', '["x", "x"]', ["request 'x' appears twice"]),
    ('a = ["{definition}"]', "", ["no templates for section 'a'"]),
    ('a = ["{definition}"]', "a = []", ["no templates for section 'a'"]),
    (
        'a = ["{definition}"]',
        'a = ["{definition}"]\nb = ["x"]\nnote = ["x"]',
        ["unknown section 'b'", "unknown section 'note'"],
    ),
    ("[data]", "[data]\nsystem_share = 1.5", ["'system_share' is 1.5, expected 0 to 1"]),
    *(
        ("{definition}", hole, ["expected a fact's fields in braces"])
        for hole in ("{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{a:{b}}", "", " ")
    ),
    (
        "{definition}",
        "{sources} {id} {keywords}",
        [
            "no template can name 'id'",
            "no template can name 'sources'",
            "a_concept, category, concept, expansion, keywords, other_senses or texts",
        ],
    ),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD, ids=range(len(BAD)))
def test_a_bad_data_table_gets_one_line(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    assert old in TASK
    with pytest.raises(UserError) as caught:
        load(tmp_path, TASK.replace(old, new))
    assert str(caught.value).startswith(str(tmp_path / "my.toml")) and "\n" not in str(caught.value)
    assert [part for part in said if part not in str(caught.value)] == []
