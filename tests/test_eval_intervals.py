import pytest

from eval.intervals import wilson

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
