import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.stats.intervals import (
    answers_needed,
    bootstrap,
    clustered,
    clustered_rate,
    pass_k,
    smallest_difference,
    unseen,
    wilson,
    z_value,
)

CASES = [(0, 1), (1, 1), (0, 60), (60, 60), (57, 60), (220, 231), (1, 231), (115, 231), (9_999, 10_000)]


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("count", "n"), CASES)
def test_equals_scipy_and_statsmodels(count: int, n: int, confidence: float) -> None:
    from scipy.stats import binomtest
    from statsmodels.stats.proportion import proportion_confint

    rate = wilson(count, n, confidence)
    theirs = binomtest(count, n).proportion_ci(confidence, method="wilson")
    assert (rate.low, rate.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (rate.low, rate.high) == pytest.approx(proportion_confint(count, n, 1 - confidence, "wilson"), abs=1e-12)
    assert rate.share == count / n and 0 <= rate.low <= rate.share <= rate.high <= 1


def test_nothing_counted_is_no_zero() -> None:
    rate = wilson(0, 0)
    assert rate.share is None and (rate.low, rate.high) == (0, 1) and str(rate) == "-"


def groups(*counts: tuple[int, int]) -> tuple[list[bool], list[str]]:
    """A cluster for each (hits, answers)."""
    hits = [place < of_it for of_it, n in counts for place in range(n)]
    return hits, [f"c{number}" for number, (_, n) in enumerate(counts) for _ in range(n)]


def test_the_bootstrap_equals_scipys_over_clusters() -> None:
    import numpy as np
    from scipy import stats

    counts = [(hits % 5, 4 + hits % 3) for hits in range(60)]
    hits, clusters = groups(*counts)
    sums, sizes = (np.array(column, float) for column in zip(*[(min(h, n), n) for h, n in counts], strict=True))
    theirs = stats.bootstrap(
        (sums, sizes), lambda s, n, axis: s.sum(axis) / n.sum(axis), paired=True, vectorized=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = bootstrap([float(hit) for hit in hits], clusters, resamples=20_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.003), "the draws differ, the interval does not"


def test_answers_that_hang_together_tell_less() -> None:
    alone = clustered_rate([i % 5 > 0 for i in range(300)], [str(i) for i in range(300)])
    together = clustered_rate(*groups(*[(4 * (i % 5 > 0), 4) for i in range(75)]))
    rows = wilson(240, 300)
    assert alone.share == together.share == rows.share == 0.8
    assert (alone.low, alone.high) == pytest.approx((rows.low, rows.high), abs=0.01)
    few = wilson(60, 75)
    assert (together.low, together.high) == pytest.approx((few.low, few.high), abs=0.02)


@pytest.mark.parametrize(("hits", "low", "high"), [(4, 77 / (77 + z_value() ** 2), 1), (0, 0, unseen(77))])
def test_all_alike_counts_concepts_not_answers(hits: int, low: float, high: float) -> None:
    assert clustered(*groups(*[(hits, 4)] * 77)) == pytest.approx((low, high), abs=1e-12)
    assert unseen(77) == wilson(0, 77).high == pytest.approx(0.0475, abs=1e-4)


def test_clusters_that_agree_on_half_still_have_a_width() -> None:
    low, high = clustered(*groups(*[(2, 4)] * 30))
    assert bootstrap([1.0, 0.0] * 60, groups(*[(2, 4)] * 30)[1]) == (0.5, 0.5), "the bootstrap sees no difference"
    assert low < 0.45 and high > 0.55


def test_one_seed_one_interval_whatever_the_order() -> None:
    hits, clusters = groups(*[(i % 4, 3 + i % 7) for i in range(40)])
    again = clustered(hits[::-1], clusters[::-1])
    assert clustered(hits, clusters) == again != clustered(hits, clusters, seed=1)


rows = st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), min_size=1, max_size=40)


@given(rows, st.data())
def test_an_interval_holds_its_share_and_a_hit_more_lowers_no_end(
    drawn: list[tuple[bool, str]], data: st.DataObject
) -> None:
    hits, clusters = [hit for hit, _ in drawn], [cluster for _, cluster in drawn]
    low, high = clustered(hits, clusters, resamples=200)
    share = sum(hits) / len(hits)
    assert 0 <= low <= share <= high <= 1 and high - low > 0.01
    place = data.draw(st.integers(0, len(hits) - 1))
    better = clustered([*hits[:place], True, *hits[place + 1 :]], clusters, resamples=200)
    assert better[0] >= low and better[1] >= high


def test_nothing_to_draw() -> None:
    assert clustered([], []) == (0, 1) and clustered_rate([], []).share is None
    for hits, clusters in (([], []), ([1.0], []), ([1.0], ["a", "b"])):
        with pytest.raises(ValueError, match="one cluster for each value"):
            bootstrap(hits, clusters)


REPEATS = {"a": [True, True, True], "b": [True, True, False], "c": [False, False, False]}


@pytest.mark.parametrize(("k", "share"), [(1, (1 + 2 / 3) / 3), (2, (1 + 1 / 3) / 3), (3, 1 / 3)])
def test_pass_k_by_hand(k: int, share: float) -> None:
    hits = [hit for repeats in REPEATS.values() for hit in repeats]
    requests = [name for name, repeats in REPEATS.items() for _ in repeats]
    found = pass_k(hits, requests, k)
    assert found.share == pytest.approx(share) and (found.requests, found.left_out) == (3, 0)
    assert found.low <= share <= found.high


def test_pass_k_is_a_rate_of_requests() -> None:
    requests = [f"r{i}" for i in range(60) for _ in range(5)]
    hits = [i < 57 or repeat > 0 for i in range(60) for repeat in range(5)]
    found = pass_k(hits, requests, 5)
    expected = clustered_rate([True] * 57 + [False] * 3, [f"r{i}" for i in range(60)])
    assert (found.share, found.low, found.high) == (expected.share, expected.low, expected.high)
    concepts = [f"c{i // 20}" for i in range(60) for _ in range(5)]
    assert pass_k(hits, requests, 5, concepts).low < found.low, "three concepts tell less than sixty requests"


def test_pass_k_counts_the_requests_it_leaves_out() -> None:
    found = pass_k([True, True, True], ["a", "a", "b"], 2)
    assert (found.requests, found.left_out, found.share) == (1, 1, 1.0)
    none = pass_k([True], ["a"], 2)
    assert (none.requests, none.left_out, none.share, none.low, none.high) == (0, 1, None, 0, 1)
    for hits, requests, k, clusters in (
        ([True], ["a"], 0, None),
        ([True], [], 1, None),
        ([True], ["a"], 1, ["x", "y"]),
    ):
        with pytest.raises(ValueError, match="k of 1 or more"):
            pass_k(hits, requests, k, clusters)


def power(n: int, flips: float, difference: float) -> float:
    """The chance that the exact McNemar test is significant, summed over all outcomes of n requests."""
    from scipy.stats import binom

    total = 0.0
    for count in range(n + 1):
        shown = [up for up in range(count + 1) if 2 * binom.cdf(min(up, count - up), count, 0.5) <= 0.05]
        total += binom.pmf(count, n, flips) * sum(binom.pmf(shown, count, (flips + difference) / (2 * flips)))
    return float(total)


@pytest.mark.parametrize(("n", "flips"), [(77, 8), (77, 30), (120, 12), (60, 60)])
def test_the_smallest_difference_is_found_four_times_in_five(n: int, flips: int) -> None:
    smallest = smallest_difference(n, flips)
    assert smallest is not None and smallest < flips / n
    assert 0.72 < power(n, flips / n, smallest) < 0.8


@pytest.mark.parametrize(("n", "flips"), [(77, 0), (77, 3), (120, 5)])
def test_few_flips_hide_no_smaller_difference(n: int, flips: int) -> None:
    smallest = smallest_difference(n, flips)
    assert smallest is not None and smallest > flips / n
    assert 0.72 < power(n, smallest, smallest) < 0.8, "every flip goes one way"


@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_handful_of_requests_shows_nothing(n: int) -> None:
    assert smallest_difference(n, 0) is None
    assert smallest_difference(6, 0) is not None


@given(st.integers(6, 2000), st.integers(0, 2000))
def test_more_requests_show_smaller_differences(n: int, flips: int) -> None:
    here, more = smallest_difference(n, min(flips, n)), smallest_difference(2 * n, 2 * min(flips, n))
    assert here is not None and more is not None and 0 < more < here <= 1


@pytest.mark.parametrize(("share", "bound"), [(0.95, 0.9), (0.85, 0.9), (0.5, 0.1), (0.01, 0.02)])
def test_answers_needed_move_the_bound_out_of_the_interval(share: float, bound: float) -> None:
    needed = answers_needed(share, bound)
    assert needed is not None
    for n, outside in ((needed, True), (needed - 1, False)):
        rate = wilson(share * n, n)  # type: ignore[arg-type]  # a part of a hit keeps the share
        assert (not rate.low < bound < rate.high) == outside
    assert answers_needed(bound, bound) is None
