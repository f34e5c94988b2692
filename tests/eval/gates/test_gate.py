import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from eval.gates.gate import Bound, Figures, Gate, NonInferior, Outcome, Ruling, judge_gate, load_gate, to_markdown
from eval.gates.junit import to_junit
from eval.stats.intervals import Rate, wilson
from eval.stats.paired import PairedAnswer
from plumbing.errors import UserError

KNOWN = {
    "adherence": ("strict", "loose", "lenient"),
    "sections": ("definition", "note"),
    "categories": ("signs", "tests"),
    "classes": ("TRUNCATED", "PREAMBLE"),
}
REQUESTS = {f"r{i}": f"What is {i}?" for i in range(200)}
FIGURES = Figures(
    adherence={"strict": wilson(190, 200), "loose": wilson(195, 200), "lenient": wilson(200, 200)},
    named=wilson(150, 200),
    sections={"definition": wilson(199, 200), "note": wilson(191, 200)},
    categories={"signs": wilson(95, 100), "tests": wilson(95, 100)},
    classes={"TRUNCATED": wilson(0, 200), "PREAMBLE": wilson(10, 200)},
    attempted=202,
    failed=2,
)
EVERY_TABLE = """
[adherence]
strict = 0.9
lenient = 0.97
[named]
min_low = 0.6
[sections]
min_low = 0.9
definition = 0.95
[categories]
tests = 0.8
[classes]
max_share = 0.2
TRUNCATED = 0.02
[errors]
max_share = 0.01
"""


def gate_file(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text)
    return path


def results(misses: range = range(0)) -> dict[str, PairedAnswer]:
    return {
        name: PairedAnswer(request, f"c{i // 2}", i not in misses) for i, (name, request) in enumerate(REQUESTS.items())
    }


def store(folder: Path, misses: range = range(0), **changes: object) -> Path:
    (folder / "last").mkdir()
    rows = [{"id": name, **vars(row)} for name, row in results(misses).items()]
    lines = [
        json.dumps({"id": row["id"], "request": row["request"], "concept": row["concept"], "error_kind": "",
                    "strict": row["adheres"]} | changes) + "\n"
        for row in rows
    ]  # fmt: skip
    (folder / "last/answers.jsonl").write_text("".join(lines))
    return gate_file(folder, '[non_inferior]\nreport = "last"\nmargin = 0.05\n')


def test_a_file_becomes_its_bounds(tmp_path: Path) -> None:
    gate = load_gate(gate_file(tmp_path, EVERY_TABLE), KNOWN, REQUESTS)
    assert gate.non_inferior is None
    assert {(bound.title, bound.share) for bound in gate.bounds} == {
        ("adherence strict", 0.9), ("adherence lenient", 0.97), ("named", 0.6), ("sections definition", 0.95),
        ("sections note", 0.9), ("categories tests", 0.8), ("classes TRUNCATED", 0.02), ("classes PREAMBLE", 0.2),
        ("errors", 0.01),
    }  # fmt: skip


BAD = {
    "unknown table": ("[adherance]\nstrict = 0.9\n", "unknown key 'adherance' (did you mean 'adherence'?)"),
    "unknown reading": ("[adherence]\nlax = 0.9\n", "unknown name 'lax' (known: min_low, strict, loose, lenient)"),
    "unknown section": ("[sections]\nnotes = 0.9\n", "unknown name 'notes' (known: min_low, definition, note)"),
    "unknown category": ("[categories]\nsign = 0.9\n", "unknown name 'sign' (known: min_low, signs, tests)"),
    "unknown class": ("[classes]\nCUT = 0.1\n", "unknown name 'CUT' (known: max_share, TRUNCATED, PREAMBLE)"),
    "the wrong side": ("[classes]\nmin_low = 0.1\n", "unknown name 'min_low'"),
    "a name where there is one figure": ("[named]\nstrict = 0.5\n", "unknown name 'strict' (known: min_low)"),
    "percent": ("[adherence]\nstrict = 90\n", "'strict' is 90, expected a share from 0 to below 1"),
    "certainty": ("[adherence]\nstrict = 1.0\n", "no run can prove 1"),
    "never": ("[classes]\nTRUNCATED = 0.0\n", "no run can prove 0"),
    "no number": ("[errors]\nmax_share = nan\n", "'max_share' is nan, expected a share from 0 to 1"),
    "text": ("[named]\nmin_low = 'high'\n", "'named' is {'min_low': 'high'}, expected dict[str, float]"),
    "no table": ("adherence = 0.9\n", "'adherence' is 0.9, expected dict[str, float]"),
    "empty": ("", "does not hold a bound"),
    "an empty table": ("[adherence]\n", "does not hold a bound"),
    "no margin": ("[non_inferior]\nreport = 'last'\n", "[non_inferior]: missing key 'margin'"),
    "margin of the wrong sign": ("[non_inferior]\nreport = 'x'\nmargin = -0.1\n", "'margin' is -0.1, expected"),
    "no report": ("[non_inferior]\nreport = 'none'\nmargin = 0.1\n", "none: no such file"),
    "no TOML": ("[adherence\n", "not valid TOML"),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=BAD)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        load_gate(gate_file(tmp_path, text), KNOWN, REQUESTS)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = "[sections]\nnotes = 0.9\n[classes]\nCUT = 2\n[non_inferior]\nmargin = 2\nreport = 'last'\n"
    with pytest.raises(UserError, match=r"4 faults: .*notes.*CUT.*is 2, expected.*'margin' is 2"):
        load_gate(gate_file(tmp_path, text), KNOWN, REQUESTS)


def ruled(table: str, name: str, share: float, figures: Figures = FIGURES) -> str:
    return judge_gate(Gate((Bound(table, name, share),)), figures).rulings[0].verdict


# 190 of 200 is 95.0 % (91.0 to 97.3), 0 of 200 is 0 to 1.9 %, 10 of 200 is 5.0 % (2.7 to 9.0): Wilson, 95 %.
RULES = [
    ("adherence", "strict", 0.91, "pass"),
    ("adherence", "strict", 0.92, "inconclusive"),
    ("adherence", "strict", 0.97, "inconclusive"),
    ("adherence", "strict", 0.98, "below"),
    ("adherence", "lenient", 0.98, "pass"),
    ("named", "", 0.68, "pass"),
    ("named", "", 0.75, "inconclusive"),
    ("named", "", 0.85, "below"),
    ("sections", "note", 0.99, "below"),
    ("categories", "signs", 0.9, "inconclusive"),
    ("classes", "TRUNCATED", 0.02, "pass"),
    ("classes", "TRUNCATED", 0.01, "inconclusive"),
    ("classes", "PREAMBLE", 0.1, "pass"),
    ("classes", "PREAMBLE", 0.05, "inconclusive"),
    ("classes", "PREAMBLE", 0.02, "below"),
    ("errors", "", 0.01, "pass"),
    ("errors", "", 0.005, "below"),
]


@pytest.mark.parametrize(("table", "name", "share", "verdict"), RULES)
def test_the_interval_decides(table: str, name: str, share: float, verdict: str) -> None:
    assert ruled(table, name, share) == verdict


def test_an_end_on_the_bound_passes() -> None:
    rate = Rate(9, 10, 0.9, 0.5, 0.75)
    figures = replace(FIGURES, named=rate, classes={"TRUNCATED": rate})
    assert [ruled("named", "", share, figures) for share in (0.5, 0.75, 0.76)] == ["pass", "inconclusive", "below"]
    assert [ruled("classes", "TRUNCATED", share, figures) for share in (0.75, 0.5, 0.49)] == [
        "pass", "inconclusive", "below"
    ]  # fmt: skip
    assert ruled("errors", "", 0.25, replace(FIGURES, attempted=8)) == "pass"


def test_nothing_counted_is_inconclusive() -> None:
    ruling = judge_gate(Gate((Bound("named", "", 0.5),)), replace(FIGURES, named=wilson(0, 0))).rulings[0]
    assert (ruling.verdict, ruling.cause) == ("inconclusive", "nothing was counted")


@pytest.mark.parametrize(
    ("rate", "bound", "told"),
    [
        (
            wilson(19, 20),
            0.9,
            "20 answers are too few; about 139 would show that it is met if the share stayed at 95 %",
        ),
        (
            wilson(25, 30),
            0.9,
            "30 answers are too few; about 78 would show that it is missed if the share stayed at 83.33 %",
        ),
        (Rate(190, 200, 0.95, 0.89, 0.98), 0.9, "200 answers are too few; more concepts would show that it is met"),
        (wilson(18, 20), 0.9, "the bound is inside the interval: 20 answers are too few"),
    ],
)
def test_an_open_bound_says_what_would_close_it(rate: Rate, bound: float, told: str) -> None:
    figures = replace(FIGURES, named=rate)
    assert told in judge_gate(Gate((Bound("named", "", bound),)), figures).rulings[0].cause


def outcome(*verdicts: str) -> Outcome:
    return Outcome(tuple(Ruling(f"rule {verdict}", verdict, "at least 90 %", "x", "") for verdict in verdicts))


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["pass"], 0),
        (["pass", "inconclusive"], 3),
        (["below", "inconclusive", "pass"], 2),
        (["inconclusive", "below"], 2),
    ],
)
def test_the_worst_ruling_is_the_exit_code(verdicts: list[str], code: int) -> None:
    assert outcome(*verdicts).code == code


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (range(0), range(0), "pass"),
        (range(20), range(20), "pass"),
        (range(20), range(18), "pass"),
        (range(0), range(8), "inconclusive"),
        (range(0), range(40), "below"),
        (range(40), range(0), "pass"),
    ],
)
def test_a_run_is_held_against_a_stored_one(tmp_path: Path, before: range, now: range, verdict: str) -> None:
    gate = load_gate(store(tmp_path, before), KNOWN, REQUESTS)
    ruling = judge_gate(gate, FIGURES, results(now)).rulings[0]
    assert (ruling.title, ruling.verdict, ruling.expected) == ("non_inferior last", verdict, "no more than 5 % worse")
    assert ("r0, r1" in ruling.cause) == (verdict == "below"), "what was lost is named"


def test_the_concepts_decide_not_the_requests() -> None:
    """Twelve lost requests of twelve concepts are within the margin of 10 %; of two concepts they need not be."""
    names = list(REQUESTS)
    reference = {name: PairedAnswer("?", f"c{i // 2}", True) for i, name in enumerate(names)}
    spread = {name: replace(row, adheres=i % 16 != 0) for i, (name, row) in enumerate(reference.items())}
    packed = {name: PairedAnswer("?", f"c{i // 7}", i >= 13) for i, name in enumerate(names)}
    gate = Gate((), NonInferior("last", 0.1), reference)
    assert judge_gate(gate, FIGURES, spread).verdict == "inconclusive"
    assert sum(row.adheres is False for row in spread.values()) == sum(row.adheres is False for row in packed.values())
    tight = judge_gate(replace(gate, non_inferior=NonInferior("last", 0.12)), FIGURES, spread)
    loose = judge_gate(replace(gate, non_inferior=NonInferior("last", 0.12)), FIGURES, packed)
    assert (tight.verdict, loose.verdict) == ("pass", "inconclusive")


def test_an_answer_that_never_came_is_told(tmp_path: Path) -> None:
    gate = load_gate(store(tmp_path), KNOWN, REQUESTS)
    now = results(range(8)) | {"r199": PairedAnswer(REQUESTS["r199"], "c99", None)}
    ruling = judge_gate(gate, FIGURES, now).rulings[0]
    assert ruling.cause == "199 pairs are too few; 1 requests lack an answer in one run"


@pytest.mark.parametrize("changes", [{"request": "Who?"}, {"strict": "absent"}])
def test_a_report_of_other_requests_is_refused_before_the_run(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"'r0' has another request in the reference|expected id, request"):
        load_gate(store(tmp_path, **changes), KNOWN, REQUESTS)


def test_junit_counts_and_tells() -> None:
    gate = Gate((Bound("adherence", "strict", 0.91), Bound("adherence", "loose", 0.99), Bound("named", "", 0.75)))
    text = to_junit(judge_gate(gate, FIGURES))
    root = Xml.fromstring(text.encode())
    suite = root.find("testsuite")
    assert suite is not None and root.tag == "testsuites" and text.startswith("<?xml")
    counts = {"name": "gate", "tests": "3", "failures": "1", "errors": "1", "skipped": "0"}
    assert suite.attrib == counts and root.attrib == counts
    assert [case.get("name") for case in suite] == ["adherence strict", "adherence loose", "named"]
    assert [[child.tag for child in case] for case in suite] == [["system-out"], ["failure"], ["error"]]
    failure, error = suite[1][0], suite[2][0]
    assert (
        failure.get("type") == "below"
        and failure.get("message") == "the whole interval is on the wrong side of the bound"
    )
    assert failure.text == "expected at least 99 %, found 97.5 % (94.3 to 98.9) of 200"
    assert error.get("type") == "inconclusive" and "too few" in str(error.get("message"))


def test_junit_stays_xml_whatever_a_rule_says() -> None:
    nasty = 'a<b & "c" \x00\x1b]]>\ud800\ufffe é 😀 > d'
    text = to_junit(Outcome((Ruling(nasty, "below", nasty, nasty, nasty),)), nasty)
    case = Xml.fromstring(text.encode())[0][0]
    assert case.get("name") == nasty.translate({0: "\ufffd", 27: "\ufffd", 0xD800: "\ufffd", 0xFFFE: "\ufffd"})


def test_the_page_begins_with_what_did_not_pass() -> None:
    gate = Gate((Bound("errors", "", 0.5), Bound("adherence", "strict", 0.91), Bound("classes", "PREAMBLE", 0.02)))
    assert to_markdown(judge_gate(gate, FIGURES)) == (
        "### Gate: below (2 of 3 bounds met)\n\n"
        "| bound | expected | found | verdict |\n|---|---|---|---|\n"
        "| classes PREAMBLE | at most 2 % | 5.0 % (2.7 to 9.0) of 200 |"
        " **below**: the whole interval is on the wrong side of the bound |\n"
        "| errors | at most 50 % | 2 of 202 | pass |\n"
        "| adherence strict | at least 91 % | 95.0 % (91.0 to 97.3) of 200 | pass |\n"
    )


def test_a_bar_in_a_name_breaks_no_table() -> None:
    page = to_markdown(Outcome((Ruling("sections a|b", "pass", "w", "f", ""),)))
    assert page.splitlines()[-1] == "| sections a\\|b | w | f | pass |"
