"""The self-test passes on every form, and a judge with one rule planted wrong turns it red."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.contract import TASKS, Contract, load_contract
from contract.kinds import Choice, Fixed, Prose
from eval.judge import content_faults as signs
from eval.judge import verdict
from eval.judge.verdict import CLASSES, judge
from eval.selftest import __main__ as selftest
from eval.selftest import clean_examples as clean
from eval.selftest import mutations
from eval.selftest.__main__ import TaskResult, check
from eval.selftest.clean_examples import clean_examples, generated_example
from models.answers import Answer
from plumbing.errors import UserError, run
from tests.conftest import ROOT
from tests.strategies import FORMS, PUBMEDQA, SHIPPED, SOAP

TERMINOLOGY = TASKS / "terminology.toml"


@pytest.fixture(autouse=True)
def few_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "MUTATED", 2)
    monkeypatch.setattr(clean, "GENERATED", 12)


@pytest.mark.parametrize("contract", SHIPPED, ids=lambda contract: contract.name)
def test_every_shipped_task_passes(contract: Contract) -> None:
    result = check(contract, TASKS / f"{contract.name}.toml")
    assert result.missed == () and result.failed == 0 and result.passed
    assert result.clean > 10


@pytest.mark.parametrize("contract", FORMS, ids=lambda contract: contract.name)
def test_every_form_passes(contract: Contract, tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text("")  # no facts: words are made up
    result = check(contract, tmp_path / "task.toml")
    assert result.missed == () and result.passed and result.source == "generated words"


def test_the_shipped_task_shows_every_class_in_several_ways() -> None:
    example = clean_examples(SHIPPED[-1], TERMINOLOGY)[0][0]
    made: dict[str, set[str]] = {}
    for mutant in mutations.mutants(load_contract("terminology"), example):
        assert mutant.answer != Answer(example.response)
        made.setdefault(mutant.cls, set()).add(mutant.what)
    assert set(made) == set(CLASSES) == set(mutations.MUTATIONS)
    assert min(map(len, made.values())) >= 4


def test_the_mutants_are_not_spelled_by_the_judge() -> None:
    for name in ("mutations", "section_faults", "clean_answer"):
        source = (ROOT / f"eval/selftest/{name}.py").read_text()
        assert "import re\n" not in source and "headings" not in source.partition('"""\n')[2].partition("\n\n\n")[0]


def _nothing(*_: Any) -> tuple[()]:
    return ()


PLANTED: dict[str, tuple[Any, str, Any, str]] = {
    "no quotation or code is seen": ("contract.diagnosis.fences", "", _nothing, "CODE_FENCE"),
    "no order is kept": ("contract.diagnosis._Diagnosis._order", "", _nothing, "MISSING_SECTION"),
    "no stray text is seen": ("contract.diagnosis._Diagnosis._stray", "", _nothing, "EXTRA_SECTION"),
    "every note is the note": ("contract.kinds.Fixed.read", "", lambda self, body: (body, []), "NOTE_WEAK"),
    "no words are counted": ("contract.kinds._count_faults", "", lambda *_: [], "TOO_LONG"),
    "every line is a line": ("contract.kinds.is_line", "", lambda text: True, "WRONG_VALUE"),
    "no limit is heeded": ("eval.judge.verdict._BROKEN_OFF", "", {}, "TRUNCATED"),
}


@pytest.mark.parametrize(("where", "_", "wrong", "cls"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_of_the_reader_is_noticed(
    where: str, _: str, wrong: Any, cls: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, wrong)
    result = check(load_contract("terminology"), TERMINOLOGY)
    assert not result.passed and result.classes[cls].missed > 0
    assert any(line.startswith(f"{cls}: ") for line in result.missed)


@pytest.mark.parametrize("cls", signs.RULES)
def test_each_rule_taken_away_is_noticed(cls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(signs.RULES, cls, _nothing)
    result = check(load_contract("terminology"), TERMINOLOGY)
    assert not result.passed
    assert {name for name, found in result.classes.items() if found.missed} == {cls}


def test_a_rule_that_is_too_strict_is_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    def often(read: Any) -> list[tuple[str, int, int]]:
        place = read.text.find(" and ")
        return [("definition", place, place + 5)] if place >= 0 else []

    monkeypatch.setitem(signs.RULES, "REFUSAL", often)
    result = check(load_contract("terminology"), TERMINOLOGY)
    assert not result.passed and result.classes["REFUSAL"].false_alarms == result.failed > 100
    assert all(found.false_alarms == 0 for cls, found in result.classes.items() if cls != "REFUSAL")


def test_a_loose_reading_that_fails_a_clean_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "judge", lambda *case: _without_lenient(judge(*case)))
    result = check(load_contract("terminology"), TERMINOLOGY)
    assert result.failed == result.clean and not result.passed


def _without_lenient(found: verdict.Verdict) -> verdict.Verdict:
    return verdict.Verdict(found.violations, found.primary, found.strict, found.loose, False, None, found.reading)


def test_clean_answers_are_made_from_a_tasks_own_facts(tmp_path: Path) -> None:
    task = tmp_path / "cards.toml"
    task.write_text(
        'name = "cards"\nabout = "x"\nheading = "{title}: "\nseparator = "\\n\\n"\n'
        'section = [{name = "term", title = "Term", kind = "prose"}, {name = "signs", title = "Signs", kind = "items"}]\n'
        '[data]\nfacts = "facts.jsonl"\nrequests = ["{concept}?"]\n'
        '[data.sections]\nterm = ["{Concept} ({expansion})", "{Concept}"]\nsigns = ["{findings}"]\n'
    )
    rows = [
        {"id": f"f/{n}", "category": "c", "concept": f"edema{n}", "findings": [f"swelling{n}", "pain"]}
        for n in range(3)
    ]
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples, source = clean_examples(load_contract(task), task)
    assert source == "3 facts"
    assert [example.record for example in examples] == [
        {"term": f"Edema{n}", "signs": [f"swelling{n}", "pain"]} for n in range(3)
    ]
    assert check(load_contract(task), task).passed


def test_generated_answers_reach_both_ends_of_every_bound() -> None:
    for form in FORMS:
        records = [generated_example(form, number).record for number in range(200)]
        for section in form.sections:
            kind, values = section.kind, [record[section.name] for record in records]
            if isinstance(kind, Prose):
                assert {len(value.split()) for value in values} >= {kind.min_words, kind.max_words}
            elif isinstance(kind, Choice):
                assert set(values) == set(kind.options)
            elif not isinstance(kind, Fixed):
                assert {len(value) for value in values} == set(range(kind.min_items, kind.max_items + 1))


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["selftest", *arguments])
    with pytest.raises(SystemExit) as stopped:
        run(selftest.main)
    return int(str(stopped.value.code))


def test_the_table_names_every_class_and_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "mutants", "detected", "as", "primary", "missed", "false", "alarms"]
    assert [line.split()[0] for line in lines[1 : 1 + len(CLASSES)]] == list(CLASSES)
    assert all(line.split()[2] == "100.0%" and line.split()[-2:] == ["0", "0"] for line in lines[1 : 1 + len(CLASSES)])
    rest = lines[1 + len(CLASSES) :]
    assert [line.partition(":")[0] for line in rest] == [contract.name for contract in SHIPPED]
    assert all(line.endswith(": passed") for line in rest)


@pytest.mark.parametrize("form", [SOAP, PUBMEDQA], ids=["soap", "pubmedqa"])
def test_a_task_of_ones_own(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "own.toml"
    task.write_text(form)
    assert started(monkeypatch, str(task)) == 0
    out = capsys.readouterr().out
    assert "(generated words)" in out
    assert ("NOTE_WEAK                   0         -" in out) == (form == SOAP), "no fixed text, no weak note"


def test_a_miss_is_told_and_ends_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(signs.RULES, "PLACEHOLDER", _nothing)
    assert started(monkeypatch, "terminology") == 2
    out = capsys.readouterr().out
    assert "terminology: 0 of 720 clean answers fail" in out and ": FAILED" in out
    assert "  missed PLACEHOLDER: definition: ...: found TOO_SHORT in " in out
    assert started(monkeypatch, "terminology", "--json") == 2
    (row,) = json.loads(capsys.readouterr().out)
    assert (
        row["passed"] is False and row["classes"]["PLACEHOLDER"]["detected"] < row["classes"]["PLACEHOLDER"]["mutants"]
    )
    assert row["classes"]["PREAMBLE"]["detected"] == row["classes"]["PREAMBLE"]["mutants"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [(("kind = ", "kynd = "), "missing key 'kind'"), (('"prose"', '"rhyme"'), "unknown kind 'rhyme'"),
     (("min_words", "min_wrods"), "unknown key 'min_wrods'")],
)  # fmt: skip
def test_an_unknown_rule_is_one_line_and_never_a_pass(
    change: tuple[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = tmp_path / "own.toml"
    task.write_text(TERMINOLOGY.read_text().replace(*change, 1))
    assert started(monkeypatch, str(task)) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and said in captured.err


def test_a_result_with_one_miss_or_one_alarm_fails() -> None:
    make: Callable[..., TaskResult] = lambda failed=0, **found: TaskResult(  # noqa: E731
        "t", "words", 1, failed, {"PREAMBLE": selftest.Detection(**found)}, ()
    )
    assert make(mutants=3, detected=3, primary=1).passed
    assert not make(mutants=3, detected=2).passed
    assert not make(mutants=3, detected=3, false_alarms=1).passed
    assert not make(1, mutants=3, detected=3).passed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "a"', "line 1: not JSON"),
        ('{"id": "a", "category": "b"}', "line 1: no 'concept'"),
        ("[]", "line 1: no 'id'"),
    ],
)
def test_broken_facts_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "facts.jsonl").write_text(text)
    (tmp_path / "my.toml").write_text('[data]\nfacts = "facts.jsonl"\n')
    with pytest.raises(UserError, match=said):
        clean_examples(load_contract("terminology"), tmp_path / "my.toml")
