import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.stats.intervals import unseen, z_value
from eval.stats.paired import PairedAnswer, check_same, clustered_difference, mcnemar, pair, read_paired_answers, tango
from plumbing.errors import UserError

# gained, lost, n, confidence, the ends as printed
PUBLISHED = {
    # Cavo et al. 2012, in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017, chapter 8
    "consolidation therapy": (6, 16, 161, 0.95, -0.1240, -0.0054),
    # Tango 1998, section 6.1: only the lower end is printed, to three digits
    "soft contact lenses": (0, 1, 44, 0.90, -0.096, None),
}


@pytest.mark.parametrize(("gained", "lost", "n", "confidence", "low", "high"), PUBLISHED.values(), ids=PUBLISHED)
def test_tango_equals_what_is_printed(
    gained: int, lost: int, n: int, confidence: float, low: float, high: float | None
) -> None:
    found = tango(gained, lost, n, confidence)
    assert round(found[0], 3 if high is None else 4) == low
    assert high is None or round(found[1], 4) == high


@pytest.mark.parametrize("n", [1, 20, 77, 300])
def test_no_flip_is_no_certainty(n: int) -> None:
    half = z_value() ** 2 / (n + z_value() ** 2)
    assert tango(0, 0, n) == pytest.approx((-half, half), abs=1e-12)
    assert tango(n, 0, n)[1] == 1 and tango(0, n, n)[0] == -1 and tango(0, 0, 0) == (-1, 1)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


@given(tables())
def test_tango_is_an_interval(table: tuple[int, int, int]) -> None:
    gained, lost, n = table
    low, high = tango(gained, lost, n)
    assert -1 <= low <= (gained - lost) / n <= high <= 1 and high - low > 0.001
    assert tango(lost, gained, n) == pytest.approx((-high, -low), abs=1e-9)
    if gained + lost < n:
        better = tango(gained + 1, lost, n)
        assert better[0] >= low - 1e-9 and better[1] >= high - 1e-9


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (6, 0), (5, 5), (6, 16), (40, 20), (0, 300)])
def test_mcnemar_equals_statsmodels(gained: int, lost: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    expected = theirs([[10, gained], [lost, 10]], exact=True).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_equals_what_is_printed() -> None:
    assert round(mcnemar(6, 16), 6) == 0.052479  # Cavo et al. 2012, as above


steps = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from("abcdefgh")), min_size=1, max_size=40)


@given(steps, st.data())
def test_a_clustered_difference_holds_tangos_and_no_gain_lowers_an_end(
    drawn: list[tuple[int, str]], data: st.DataObject
) -> None:
    changes, concepts = [step for step, _ in drawn], [concept for _, concept in drawn]
    low, high = clustered_difference(changes, concepts)
    inner = tango(changes.count(1), changes.count(-1), len(changes))
    assert -1 <= low <= inner[0] <= inner[1] <= high <= 1
    place = data.draw(st.integers(0, len(changes) - 1))
    raised = [*changes[:place], min(1, changes[place] + 1), *changes[place + 1 :]]
    better = clustered_difference(raised, concepts)
    assert better[0] >= low - 1e-9 and better[1] >= high - 1e-9


def test_a_clustered_difference_counts_concepts() -> None:
    concepts = [f"c{i // 4}" for i in range(80)]
    assert clustered_difference([0] * 80, concepts) == pytest.approx((-unseen(20), unseen(20)), abs=1e-12)
    scattered, whole = [-(i % 4 == 0) * (i < 40) for i in range(80)], [-(i < 10) for i in range(80)]
    assert sum(scattered) == sum(whole) == -10
    assert clustered_difference(whole, concepts)[0] < clustered_difference(scattered, concepts)[0]
    assert clustered_difference(whole, concepts) == clustered_difference(whole, concepts, seed=0)
    assert clustered_difference([], []) == (-1, 1)


def results(hits: str) -> dict[str, PairedAnswer]:
    """A run from a letter a request: y, n, or - for no answer; two requests a concept."""
    adheres = {"y": True, "n": False, "-": None}
    return {f"r{i}": PairedAnswer(f"What is {i}?", f"c{i // 2}", adheres[letter]) for i, letter in enumerate(hits)}


def test_two_runs_by_hand() -> None:
    paired = pair(results("yyyynn-y"), results("yynnyny-"))
    assert (paired.n, paired.both, paired.only_measured, paired.only_reference, paired.neither) == (6, 2, 2, 1, 1)
    assert (paired.gained, paired.lost, paired.unanswered) == (("r2", "r3"), ("r4",), ("r6", "r7"))
    assert paired.difference == pytest.approx(1 / 6) and paired.p == 1.0
    assert (paired.low, paired.high) == tango(2, 1, 6)
    assert paired.clustered_low <= paired.low and paired.high <= paired.clustered_high
    assert str(paired) == "+16.7 points (-39.8 to +63.0), 2 gained and 1 lost of 6, McNemar p = 1"


def test_a_clear_gain_is_shown() -> None:
    paired = pair(results("y" * 60), results("y" * 40 + "n" * 20))
    assert paired.low > 0 and paired.clustered_low > 0 and paired.p < 1e-5
    assert paired.smallest is not None and paired.smallest < 1 / 3 == paired.difference


def test_nothing_answered_has_no_difference() -> None:
    paired = pair(results("--"), results("yy"))
    assert paired.difference is None and (paired.n, paired.smallest, paired.p) == (0, None, 1.0)
    assert str(paired) == "-" and paired.unanswered == ("r0", "r1")


def test_runs_of_different_requests_are_refused_by_name() -> None:
    same = {"a": "What?", "b": "Why?"}
    check_same(same, dict(reversed(same.items())))
    with pytest.raises(UserError) as told:
        check_same(same | {"mine": "?"}, same | {"b": "Who?", "theirs": "?"})
    assert "3 faults: 'mine' is only in the measured run; 'theirs' is only in the reference; 'b' has" in str(told.value)
    with pytest.raises(UserError, match="and 20 more"):
        pair(results("y" * 30), {})


def row(name: str, **changes: object) -> str:
    fields = {"id": name, "request": f"What is {name}?", "concept": name, "error_kind": "", "strict": True} | changes
    return json.dumps({key: value for key, value in fields.items() if value != "absent"}) + "\n"


def test_a_report_is_read_back(tmp_path: Path) -> None:
    lines = row("a") + row("b", strict=False, loose=True) + row("c", error_kind="server", strict="absent")
    (tmp_path / "answers.jsonl").write_text(lines)
    read = read_paired_answers(tmp_path)
    assert read == {
        "a": PairedAnswer("What is a?", "a", True), "b": PairedAnswer("What is b?", "b", False), "c": PairedAnswer("What is c?", "c", None)
    }  # fmt: skip
    assert read_paired_answers(tmp_path / "answers.jsonl") == read


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("{\n", "line 1: not JSON"),
        (row("a") + row("a"), "line 2: a second answer for 'a'"),
        (row("a", strict="absent"), "line 1: expected id, request, concept, error_kind and strict"),
        (row("a", strict="yes"), "line 1: expected id"),
        ("[]\n", "line 1: expected id"),
    ],
)
def test_a_report_that_cannot_be_read_is_one_line(tmp_path: Path, lines: str, told: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(lines)
    with pytest.raises(UserError) as error:
        read_paired_answers(tmp_path)
    assert str(error.value).startswith(f"{path}: {told}")


def test_a_report_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; name a report folder"):
        read_paired_answers(tmp_path / "none")
