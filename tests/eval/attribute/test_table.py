"""Known answers -> the step of eval.attribute that is named; records that came as JSON -> the text they are judged as."""

import json
from collections.abc import Callable

import pytest

from contract.base import load_base
from contract.contract import load_contract
from contract.example import Example
from eval.attribute.steps import response_of
from eval.attribute.table import Answered, measured, verdict
from eval.judge.answer_row import AnswerRow
from eval.judge.verdict import judge
from models.answers import Answer, failed

TERMS = load_contract("terminology")


def example(name: str, concept: str) -> Example:
    record = {
        "definition": f"{concept} means that the blood holds too much of what kidneys clear.",
        "explanation": "Healthy kidneys filter waste all day; when they fail it gathers and harms other organs.",
        "clinical_relevance": "Tired people with itching and nausea need a blood test and perhaps dialysis soon.",
        "note": TERMS.json_schema()["properties"]["note"]["const"],
    }
    return Example(name, concept, "c", f"Explain: {concept}", "", record, TERMS.write(record), (concept,))


def answered(step: str, say: Callable[[int, Example], str | None], n: int = 20) -> Answered:
    """A step that says of example `number` what `say` gives; None: no answer came."""
    rows = []
    for number in range(n):
        asked, text = example(str(number), f"thing {number}"), say(number, example(str(number), f"thing {number}"))
        answer = failed("transport", "gone") if text is None else Answer(text)
        rows.append(AnswerRow(asked, answer, judge(TERMS, asked, answer) if text is not None else None))
    return Answered(step, rows, {})


def right(_: int, asked: Example) -> str:
    return asked.response


def wrong(number: int, _: Example) -> str:
    return f"nothing {number}"


CASES = {
    "all steps alike": ([right, right, right], [], []),
    "the second step mends all": ([wrong, right, right], ["s2"], ["s2"]),
    "the third step breaks all": ([right, right, wrong], ["s3"], ["s3"]),
    "other words, as good": ([right, lambda n, e: " " + e.response, right], [], ["s2", "s3"]),
    "one of twenty lost": ([right, lambda n, e: e.response if n else "no", right], [], ["s2", "s3"]),
    "one that never came": ([right, lambda n, e: e.response if n else None, right], [], []),
}


@pytest.mark.parametrize(("says", "adherence", "answers"), CASES.values(), ids=CASES)
def test_the_step_of_a_change_is_named(
    says: list[Callable[[int, Example], str | None]], adherence: list[str], answers: list[str]
) -> None:
    steps = measured([answered(f"s{number}", say) for number, say in enumerate(says, 1)])
    assert [step.step for step in steps if step.adherence_changed] == adherence
    assert [step.step for step in steps if step.differing] == answers
    lines = verdict(steps)
    assert all(name in lines[0].partition(";")[0] for name in adherence) and all(
        f"{name} (" in lines[1] for name in answers
    )
    assert ("not shown" in lines[0]) and ("smallest difference that" in lines[0])
    assert ("at: no step" in lines[1]) == (not answers) and ("at: not shown" in lines[0]) == (not adherence)


def test_an_answer_that_never_came_is_compared_with_nothing() -> None:
    one, two = measured([answered("one", right), answered("two", lambda n, e: None if n < 3 else "no")])
    assert (one.before, one.compared, one.paired) == ("", 0, None)
    assert (two.before, two.judged, two.failed, two.compared, len(two.differing)) == ("one", 17, 3, 17, 17)
    assert two.paired is not None and (two.paired.n, two.paired.only_reference) == (17, 17)


def test_too_few_requests_can_show_nothing() -> None:
    [line, _] = verdict(measured([answered("one", wrong, 3), answered("two", right, 3)]))
    assert line == "adherence changed at: not shown; smallest difference that 3 requests could show: none"


def test_what_could_not_be_shown_is_told_by_the_weakest_step() -> None:
    steps = [answered("one", wrong), answered("two", right), answered("three", right)]
    steps += [answered("four", lambda n, e: None if n < 16 else e.response)]
    [line, _] = verdict(measured(steps))
    assert line == (
        "adherence changed at: two (+100.0 points); "
        "at the other steps not shown; smallest difference that 4 requests could show: none"
    )


RECORD = {
    "definition": "A state of too much sugar.",
    "explanation": "The cells no longer take up what the blood brings to them every day.",
    "clinical_relevance": "It harms eyes and nerves and kidneys when nobody treats it for years.",
    "note": TERMS.json_schema()["properties"]["note"]["const"],
}
NO_RECORDS = {
    "no JSON": "**Definition**: text",
    "broken off": json.dumps(RECORD)[:-1],
    "a section is missing": json.dumps({k: v for k, v in RECORD.items() if k != "note"}),
    "too short": json.dumps(RECORD | {"definition": "Sugar."}),
    "a list": json.dumps([RECORD]),
    "a bare number": "5",
    "a number": json.dumps(RECORD | {"definition": 5}),
    "holds the stop": json.dumps(RECORD | {"definition": "A state of too much </s> sugar."}),
    "a heading inside": json.dumps(RECORD | {"definition": "A state of too much.\n**Explanation**: sugar."}),
}


def test_a_record_is_written_as_the_model_says_it() -> None:
    text = response_of(TERMS, load_base("tiny"), json.dumps(RECORD))
    assert text == " " + TERMS.write(RECORD) and TERMS.read(text).record == RECORD


@pytest.mark.parametrize("text", NO_RECORDS.values(), ids=NO_RECORDS)
def test_what_is_no_record_stays_as_it_came(text: str) -> None:
    assert response_of(TERMS, load_base("tiny"), text) is None
