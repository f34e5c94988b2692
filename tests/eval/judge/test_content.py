import dataclasses
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.contract import load_contract
from contract.example import Example
from eval.exam.baselines import baselines
from eval.judge.content import (
    band,
    choice_score,
    grade,
    judge_content,
    key_words,
    numbers,
    prose_of,
    share_found,
    summarise_content,
    unsupported_numbers,
)
from tests.conftest import ROOT
from tests.strategies import PUBMEDQA, load_text

CONTRACT = load_contract("terminology")
NOTE = "This is educational information only. Always consult healthcare professionals for medical decisions."
RECORD = {
    "definition": "Bradycardia is a resting heart rate below 60 beats per minute in an adult.",
    "explanation": "The sinus node fires slowly, or its signal is blocked, in up to 10 percent of trained athletes.",
    "clinical_relevance": "Fainting points to a need for a pacemaker, which about three of 1,000 people carry for it.",
    "note": NOTE,
}
RESPONSE = CONTRACT.write(RECORD)
EXAMPLE = Example(
    "b/0", "bradycardia", "signs", "What is bradycardia, in 2 lines?", "", RECORD, RESPONSE,
    ("sinus node", "pacemaker", "fainting", "brady"),
)  # fmt: skip


def judged(text: str, example: Example = EXAMPLE) -> float:
    record = CONTRACT.read(text).record
    named = example.concept in str(record.get("definition", "")).lower()
    return judge_content(CONTRACT, example, text, record, named).score


def test_the_examples_own_answer_has_the_best_score() -> None:
    content = judge_content(CONTRACT, EXAMPLE, RESPONSE, RECORD, True)
    assert dataclasses.astuple(content)[:4] == (True, 1.0, (), None) and content.score == 1.0
    assert content.words == sum(len(RECORD[name].split()) for name in RECORD if name != "note")


def test_a_number_of_the_request_is_supported() -> None:
    assert judged(RESPONSE.replace("adult.", "adult, in 2 lines.")) == 1.0


LESS = {
    "a key word missing": (RESPONSE.replace("pacemaker", "device"), 2 / 3),
    "the concept not named": (RESPONSE.replace("Bradycardia is", "It is"), 1 / 2),
    "one of four numbers made up": (RESPONSE.replace("adult.", "adult aged 35."), 3 / 4),
    "all three": (
        RESPONSE.replace("pacemaker", "device").replace("Bradycardia is", "It is").replace("adult.", "adult aged 35."),
        2 / 3 / 2 * 3 / 4,
    ),
}


@pytest.mark.parametrize(("text", "score"), LESS.values(), ids=LESS)
def test_what_is_missing_or_made_up_costs(text: str, score: float) -> None:
    assert text != RESPONSE and judged(text) == pytest.approx(score, abs=1e-4)


def test_answers_without_content_rank_last() -> None:
    other = dataclasses.replace(EXAMPLE, concept="uremia", response=RESPONSE.replace("acemaker", "eople"))
    empty, copied = (
        baselines(CONTRACT, [EXAMPLE, other])[name][0] for name in ("empty sections", "copy of the request")
    )
    assert not CONTRACT.read(empty).violations, "well-formed, and yet"
    assert judged(empty) == judged(copied) == 0.0
    poorest = RESPONSE.replace("pacemaker", "device").replace("Fainting", "It").replace("Bradycardia", "It")
    assert judged(poorest) > 0.0


def test_without_keywords_the_records_long_words_count() -> None:
    bare = dataclasses.replace(EXAMPLE, keywords=())
    told = [RECORD[name] for name in ("definition", "explanation", "clinical_relevance")]
    words = key_words(bare, told)
    assert "athletes" in words and "bradycardia" not in words and "heart" not in words and len(set(words)) == len(words)
    assert judged(RESPONSE, bare) == 1.0
    assert judged(baselines(CONTRACT, [bare])["empty sections"][0], bare) == 0.0
    assert judged(baselines(CONTRACT, [bare])["copy of the request"][0], bare) == 0.0


def test_a_keyword_that_the_request_gives_away_does_not_count() -> None:
    assert key_words(EXAMPLE, []) == ["sinus node", "pacemaker", "fainting"]
    assert share_found("Pacemakers help.", ["pacemaker", "maker"]) == 0.5, "at the start of a word, in any case"
    assert share_found("x", []) is None


def test_a_choice_is_right_or_wrong() -> None:
    contract = load_text(PUBMEDQA)
    record = {
        "reason": "The trial showed fewer relapses than placebo.", "answer": "yes",
        "note": contract.sections[2].kind.write('Not "medical advice" \\ ask a doctor.'),
    }  # fmt: skip
    text = contract.write(record)
    example = Example("p/0", "relapse", "c", "Does it help?", "", record, text, ("placebo", "trial"))
    assert judge_content(contract, example, text, record, None).right is True
    assert judge_content(contract, example, text, record, None).score == 1.0
    wrong = judge_content(contract, example, text, record | {"answer": "no"}, None)
    assert (wrong.right, wrong.score) == (False, 0.5)
    assert judge_content(contract, example, text, {}, None).right is False, "no option read is no right option"
    lucky = baselines(contract, [example])["majority class"][0]
    assert judge_content(contract, example, lucky, contract.read(lucky).record, None).score == 0.0


def test_the_prose_is_without_headings_notes_and_list_marks() -> None:
    assert prose_of(CONTRACT, f"**Definition**: Slow.\n\n1. Rest.\n 2) Run 3 km.\n\n**Note**: {NOTE}") == (
        "Slow.\n\n Rest.\n Run 3 km."
    )


WRITTEN = [
    ("60 beats, 7.35 pH, .5 mg", ["60", "7.35", "0.5"]),
    ("1,000 or 12 000 or 1\u202f234\u202f567.5", ["1000", "12000", "1234567.5"]),
    ("7.35-7.45 and 3–5 and 20/40", ["7.35", "7.45", "3", "5", "20", "40"]),
    ("5mg, 2nd, 5-year, 10mg-20mg, -2.5 SD", ["5", "2", "5", "10", "20", "2.5"]),
    ("1,0000 and 12,345", ["1", "0", "12345"]),
    ("B12, IL-6, COVID-19, T4, HbA1c, p53, kg/m2, technetium-99m", []),
    ("It is 7. Then 8, 9 and 10.", ["7", "8", "9", "10"]),
    ("In 2019 300 people fell ill.", ["2019", "300"]),
    ("one, twenty and half", []),
    ("the ratio 7·35", ["7.35"]),
]


@pytest.mark.parametrize(("text", "found"), WRITTEN)
def test_numbers_are_read_as_people_write_them(text: str, found: list[str]) -> None:
    assert [str(size) for size, _ in numbers(text)] == found


PERCENTAGES = [
    ("5 %", [True]),
    ("5% of 10 percent, 3 per cent", [True, True, True]),
    ("5 to 10 %, 5-10%, between 5 and 10 percent", [True] * 6),
    ("grade 2 and 30 %", [False, True]),
    ("5 of 100", [False, False]),
    ("5 percentiles", [False]),
]


@pytest.mark.parametrize(("text", "percent"), PERCENTAGES)
def test_a_percentage_is_no_plain_number(text: str, percent: list[bool]) -> None:
    assert [is_percent for _, is_percent in numbers(text)] == percent


SUPPORT = [
    ("It affects 12,000 people.", ["12000 people"], ()),
    ("It lasts 2.50 days.", ["2.5 days"], ()),
    ("It has 3 cusps, 4 valves.", ["three cusps"], ("4",)),
    ("5 % of all", ["5 of all"], ("5 %",)),
    ("5 of all", ["5 % of all"], ("5",)),
    ("5% of all", ["five percent of all"], ()),
    ("5 to 10 %", ["between 5 and 10 percent"], ()),
    ("5 to 12 %", ["5 to 10 %"], ("12 %",)),
    ("40 or 40 or 40.0 or 41", [], ("40", "41")),
    ("Vitamin B12 and IL-6", [], ()),
    ("In two lines, 2 lines", ["What is it, in 2 lines?"], ()),
]


@pytest.mark.parametrize(("prose", "sources", "found"), SUPPORT)
def test_a_number_needs_a_source(prose: str, sources: list[str], found: tuple[str, ...]) -> None:
    assert unsupported_numbers(prose, sources) == found


@given(st.text(max_size=60), st.text(max_size=20))
def test_a_text_supports_its_own_numbers(text: str, more: str) -> None:
    assert unsupported_numbers(text, [more, text]) == ()


@given(st.integers(0, 10**9), st.sampled_from(["{}", "{:,}", "{}.0", "about {} mg", "({})"]))
def test_a_number_is_found_however_it_is_written(number: int, form: str) -> None:
    assert [int(size) for size, _ in numbers(form.format(number))] == [number]


FLOODS = [("1 ", 20_000), ("1,", 20_000), ("a-", 0), ("1", 1), (",111", 1), ("9 999 ", 20_000)]


@pytest.mark.parametrize(("text", "count"), FLOODS)
def test_a_flood_of_digits_is_read(text: str, count: int) -> None:
    assert len(numbers(" " + text * 20_000)) == count
    assert len(unsupported_numbers("1" + text * 20_000, [])) >= 1


def test_the_grade_is_kincaids() -> None:
    # 0.39 words/sentence + 11.8 syllables/word - 15.59: 6 words and 6 syllables in 1 sentence; 10 words, 12 and 2
    assert grade("The cat sat on the mat.") == pytest.approx(0.39 * 6 + 11.8 - 15.59, abs=0.05)
    assert grade("The heart is a muscle. It pumps blood to organs.") == pytest.approx(
        0.39 * 5 + 11.8 * 12 / 10 - 15.59, abs=0.05
    )
    assert grade("Rest. " * 4_000 + "incomprehensibilities " * 4_000) == grade("Rest. " * 4_000), "a flood is cut short"
    assert grade("") is None and grade("...") is None
    assert [band(years) for years in (-2.0, 8.0, 8.1, 16.0, 30.0)] == [
        "grade 8 or below", "grade 8 or below", "grades 9 to 12", "college", "beyond college"
    ]  # fmt: skip


def test_the_grade_needs_no_network() -> None:
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from eval.judge.content import grade\n"
        "print(grade('Uremia is a build-up of urea.'))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(told.stdout) > 0


def test_a_run_is_summed_up() -> None:
    answers = [
        RESPONSE,
        RESPONSE.replace("adult.", "adult aged 35."),
        baselines(CONTRACT, [EXAMPLE])["empty sections"][0],
    ]
    contents = [
        judge_content(CONTRACT, EXAMPLE, text, {}, named)
        for text, named in zip(answers, (True, True, False), strict=True)
    ]
    summary = summarise_content(contents)
    assert summary.score == pytest.approx((1 + 0.75 + 0) / 3, abs=1e-3) and summary.covered == pytest.approx(
        2 / 3, abs=1e-3
    )
    assert (summary.unsupported.count, summary.unsupported.n) == (1, 3)
    assert sum(summary.bands.values()) == 3 and summary.words == contents[0].words
    nothing = summarise_content([])
    assert (nothing.score, nothing.covered, nothing.grade, nothing.words, nothing.bands) == (None, None, None, None, {})


def test_macro_f1_by_hand() -> None:
    expected = ["yes", "yes", "yes", "no", "no", "maybe"]
    given_answers = ["yes", "no", None, "no", "no", "yes"]
    # yes: 1 hit, 1 wrongly given, 2 missed: 2/5.  no: 2 hits, 1 wrongly given: 4/5.  maybe: missed: 0.
    found = choice_score(expected, given_answers, ["yes", "no", "maybe", "never"])
    assert found.f1 == pytest.approx({"yes": 0.4, "no": 0.8, "maybe": 0.0}), "an option nobody meant is left out"
    assert found.macro_f1 == pytest.approx(0.4) and found.unread == 1
    assert (found.accuracy.count, found.accuracy.n) == (3, 6)


def test_the_majority_class_has_accuracy_and_little_f1() -> None:
    found = choice_score(["yes"] * 8 + ["no"] * 2, ["yes"] * 10, ["yes", "no"])
    assert found.accuracy.share == 0.8 and found.macro_f1 == pytest.approx((16 / 18) / 2)


def test_no_choice_made_has_no_score() -> None:
    found = choice_score([], [], ["yes", "no"])
    assert found.macro_f1 is None and found.accuracy.share is None
    with pytest.raises(ValueError):
        choice_score(["yes"], [], ["yes", "no"])
