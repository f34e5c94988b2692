"""The contract's laws on shipped, coming and generated tasks; and what the loader refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.contract import TASKS, Contract, Record, load_contract
from contract.kinds import Choice, Fixed
from plumbing.errors import UserError
from tests.strategies import FORMS, PUBMEDQA, SOAP, contracts, load_text, records, written

Written = tuple[Contract, Record, str]


@given(written())
def test_reading_gives_back_what_was_written(case: Written) -> None:
    contract, record, text = case
    reading = contract.read(text)
    assert reading.violations == () and reading.adheres
    assert reading.record == record
    assert list(reading.record) == [section.name for section in contract.sections]


@given(written())
def test_one_leading_space_is_the_wire_format_and_two_are_not(case: Written) -> None:
    contract, record, text = case
    assert contract.read(" " + text).record == record and contract.read(" " + text).adheres
    assert not contract.read("  " + text).adheres
    assert not contract.read("\n" + text).adheres


@given(contracts)
def test_every_heading_in_the_prompt_is_one_that_read_knows(contract: Contract) -> None:
    form = contract.system_prompt().partition("\n")[2]
    reading = contract.read(form)
    assert list(reading.record) == [section.name for section in contract.sections]
    amiss = {v.cls for v in reading.violations}
    assert not amiss & {
        "PREAMBLE",
        "MISSING_SECTION",
        "NOTE_MISSING",
        "WRONG_ORDER",
        "DUPLICATE_SECTION",
        "EXTRA_SECTION",
    }
    starts = [contract.head(section) + contract.gap(section) for section in contract.sections]
    assert all(start in form for start in starts)


@given(written())
def test_the_json_schema_takes_every_record_that_can_be_written(case: Written) -> None:
    contract, record, _ = case
    schema = contract.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(record, schema)
    for name in record:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in record.items() if key != name}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record | {"other": "x"}, schema)


def _forgeries(contract: Contract) -> list[str]:
    heads = [contract.head(section) + contract.gap(section) for section in contract.sections]
    breaks = ["\n", "\n\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
    return [f"words{line}{head}words" for line in breaks for head in heads] + [f"{head}\nwords" for head in heads]


def _poison(value: Any, forged: str) -> list[Any]:
    """`value` with `forged` in each place that takes free text."""
    if isinstance(value, str):
        return [forged, value + forged, forged + value]
    if isinstance(value, list):
        return [[*value[:-1], bad] for bad in _poison(value[-1], forged)]
    return [value | {key: bad} for key in value for bad in _poison(value[key], forged)]


@pytest.mark.parametrize("contract", FORMS, ids=lambda c: c.name)
@settings(max_examples=3)
@given(data=st.data())
def test_no_value_can_forge_a_heading_or_swallow_the_next_section(contract: Contract, data: st.DataObject) -> None:
    record = data.draw(records(contract))
    for section in contract.sections:
        for forged in _forgeries(contract):
            for value in _poison(record[section.name], forged):
                with pytest.raises(ValueError, match=f"section '{section.name}'"):
                    contract.write(record | {section.name: value})


@given(st.data())
def test_a_value_is_refused_or_reads_back_as_it_was(data: st.DataObject) -> None:
    contract = data.draw(contracts)
    record = data.draw(records(contract))
    name = data.draw(st.sampled_from(sorted(record)))
    anything = (
        st.text(max_size=30)
        | st.lists(st.text(max_size=9))
        | st.none()
        | st.integers()
        | st.dictionaries(st.text(), st.text())
    )
    record[name] = data.draw(anything)
    try:
        text = contract.write(record)
    except ValueError as error:
        assert f"section '{name}'" in str(error)
        return
    assert contract.read(text).record == record and contract.read(text).adheres


def test_write_names_every_bad_section_at_once() -> None:
    contract = load_contract("terminology")
    record = {"definition": "Too short.", "explanation": 5, "note": "Ask a doctor.", "notes": "x"}
    with pytest.raises(ValueError) as caught:
        contract.write(record)
    for part in (
        "unknown section 'notes'",
        "'definition': TOO_SHORT",
        "'explanation': wanted text",
        "'clinical_relevance': missing",
        "'note'",
    ):
        assert part in str(caught.value)


def test_bounds_are_kept_at_both_ends() -> None:
    contract = load_contract("terminology")
    good = {"definition": "w " * 4 + "w", "explanation": "w " * 9 + "w", "clinical_relevance": "w " * 119 + "w"}
    good["note"] = (
        "This is educational information only. Always consult healthcare professionals for medical decisions."
    )
    assert contract.read(contract.write(good)).adheres
    for name, words in (("definition", 4), ("definition", 61), ("explanation", 9), ("explanation", 121)):
        with pytest.raises(ValueError, match="TOO_SHORT" if words < 10 else "TOO_LONG"):
            contract.write(good | {name: " ".join("w" * words)})


def test_the_shipped_task_is_the_four_part_answer() -> None:
    contract = load_contract("terminology")
    heads = ["**Definition**:", "**Explanation**:", "**Clinical Relevance**:", "**Note**:"]
    assert [contract.head(section) for section in contract.sections] == heads
    note = contract.sections[3].kind
    assert isinstance(note, Fixed)
    assert note.text.startswith("This is educational information only. Always consult healthcare professionals")


GOOD = """name = "t"
about = "You answer."
heading = "{title}: "
separator = "\\n"
[[section]]
name = "a"
title = "Alpha"
kind = "prose"
[[section]]
name = "b"
title = "Beta"
kind = "items"
"""
# (text to replace, its replacement, what the one line must say)
BAD_TASKS = [
    (
        'heading = "',
        'headding = "',
        ["unknown key 'headding' (did you mean 'heading'?)", "missing key 'heading'", "2 faults"],
    ),
    ('name = "t"\n', "name = 3\n", ["'name' is 3, wanted text"]),
    ('about = "You answer."\n', "", ["missing key 'about'"]),
    ('"{title}: "', '"Section: "', ["'heading' is 'Section: '", "{title}"]),
    ('"{title}: "', '"{title} "', ["'heading'", "more than it"]),
    ('"{title}: "', '"{title}{title}:"', ["'heading'"]),
    ('"{title}: "', '"{title}\\n"', ["'heading'", "one line"]),
    ('"{title}: "', '"{title}\\u2028: "', ["'heading'", "one line"]),
    ('"{title}: "', '"{title}\\u0000: "', ["'heading'"]),
    ('"{title}: "', '"{titel}: "', ["'heading'"]),
    ('"{title}: "', '" {title}: "', ["'heading'"]),
    ('"{title}: "', '"{0}{title}: "', ["'heading'"]),
    ('"\\n"', '""', ["'separator' is ''"]),
    ('"\\n"', '"---"', ["'separator' is '---'"]),
    ('title = "Beta"', 'title = "Alpha"', ["2 sections have the title 'Alpha'"]),
    ('name = "b"', 'name = "a"', ["2 sections have the name 'a'"]),
    ('title = "Beta"', 'title = "Al  pha"', ["section 2 'b': 'title': wanted one line with single spaces"]),
    ('title = "Beta"', 'title = ""', ["section 2 'b': 'title': wanted text"]),
    ('title = "Beta"', "title = 7", ["section 2 'b': 'title': wanted text, found 7"]),
    ('title = "Beta"', 'title = "B\\u0008"', ["control character"]),
    ('title = "Beta"\n', "", ["section 2 'b': missing key 'title'"]),
    (
        'kind = "items"',
        'kind = "list"',
        ["section 2 'b': unknown kind 'list' (kinds: prose, items, pairs, choice, fixed)"],
    ),
    ('kind = "items"', 'kind = ["items"]', ["section 2 'b': unknown kind ['items']"]),
    (
        'kind = "items"',
        'kind = "items"\nmin_item = 2',
        ["section 2 'b': unknown key 'min_item' (did you mean 'min_items'?)"],
    ),
    ('kind = "items"', 'kind = "items"\nmin_items = "2"', ["'min_items' is '2', wanted int"]),
    ('kind = "items"', 'kind = "items"\nmin_items = true', ["'min_items' is True, wanted int"]),
    ('kind = "items"', 'kind = "items"\nmin_items = 9\nmax_items = 3', ["min_items is 9 and max_items is 3"]),
    ('kind = "items"', 'kind = "items"\nmin_items = 0', ["wanted 1 <= min <= max"]),
    ('kind = "items"', 'kind = "choice"', ["section 2 'b': missing key 'options'"]),
    ('kind = "items"', 'kind = "choice"\noptions = ["yes"]', ["two or more different texts"]),
    ('kind = "items"', 'kind = "choice"\noptions = ["yes", " no"]', ["one line with single spaces"]),
    ('kind = "items"', 'kind = "fixed"\ntext = "a\\nb"', ["wanted one line"]),
    ('kind = "items"', 'kind = "pairs"\nlabels = ["Q"]', ["wanted two different words"]),
    (
        'kind = "items"',
        'kind = "pairs"\nlabels = ["Alpha", "B"]',
        ["heading 'Alpha:' looks like the list mark 'Alpha: '"],
    ),
    ('"{title}: "', '"- {title}: "', ["heading '- Alpha:' looks like the list mark '- '"]),
    ('"{title}: "', '"# {title}"', []),
    ('title = "Beta"', 'title = "Alpha:"', ["heading 'Alpha::' begins with heading 'Alpha:'"]),
    ('about = "', 'example = ""\nabout = "', ["'example': wanted text, found ''"]),
    ('about = "', 'example = ["Hi"]\nabout = "', ["'example' is ['Hi'], wanted text"]),
    ('about = "', 'example = "one\\ntwo"\nabout = "', ["'example': wanted one line"]),
    ("[[section]]", "[[sections]]", ["unknown key 'sections' (did you mean 'section'?)", "missing key 'section'"]),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD_TASKS, ids=range(len(BAD_TASKS)))
def test_a_bad_task_gets_one_line_with_all_its_faults(tmp_path: Path, old: str, new: str, said: list[str]) -> None:
    path = tmp_path / "my.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    if not said:
        assert load_contract(path)
        return
    with pytest.raises(UserError) as caught:
        load_contract(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_an_example_changes_neither_the_prompt_nor_which_contract_it_is(tmp_path: Path) -> None:
    """A model folder made before the key was added still belongs to the same task."""
    path = tmp_path / "my.toml"
    path.write_text(GOOD, encoding="utf-8")
    without = load_contract(path)
    path.write_text('example = "Say A."\n' + GOOD, encoding="utf-8")
    contract = load_contract(path)
    assert (without.example, contract.example) == ("", "Say A.")
    assert contract == without and contract.system_prompt() == without.system_prompt()


def test_all_faults_of_a_task_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    bad = [("heading =", "headding ="), ('kind = "prose"', 'kind = "list"'), ('title = "Beta"\n', ""), ('"\\n"', '"x"')]
    text = GOOD + "max_item = 3\n[[section]]\nname = 5\n"
    for old, new in bad:
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="9 faults") as caught:
        load_contract(path)
    for part in (
        "'headding'",
        "unknown kind 'list'",
        "missing key 'title'",
        "'max_item'",
        "'name': wanted text, found 5",
        "'separator'",
        "missing key 'kind'",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"name = ", "not valid TOML"), (b"\xff\xfe", "not valid TOML"), (b"section = 3", "wanted [[section]] tables"),
     (b"section = [3]", "section 1: wanted a table"), (b"section = []", "no [[section]]")],
)  # fmt: skip
def test_a_file_that_is_no_task(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_contract(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["terminolgy", "nowhere/my.toml", "a\0b"])
def test_an_unknown_task_names_the_shipped_ones(task: str) -> None:
    with pytest.raises(UserError, match=r"no such task \(shipped: .*terminology"):
        load_contract(task)


def test_the_next_tasks_fit() -> None:
    soap, qa = load_text(SOAP), load_text(PUBMEDQA)
    record = {"s": "Cough for 3 days.", "o": "T 38.1 °C", "a": ["Bronchitis"], "p": ["Fluids", "Return in 2 days"]}
    text = "S: Cough for 3 days.\nO: T 38.1 °C\nA:\n- Bronchitis\nP:\n- Fluids\n- Return in 2 days"
    assert soap.write(record) == text and soap.read(text).record == record
    assert isinstance(qa.sections[1].kind, Choice)
    assert all(load_contract(path) for path in TASKS.glob("*.toml"))
