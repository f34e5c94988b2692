"""Counts and hits -> rates with 95 % intervals; the smallest difference a run can show.

Wilson's interval treats every answer as independent.  Answers about one concept are not: `clustered` resamples whole
concepts.  numpy is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb, sqrt
from statistics import NormalDist

CONFIDENCE = 0.95  # of every interval, two-sided; tests are at 1 - CONFIDENCE
POWER = 0.8  # chance of finding a difference that exists
RESAMPLES = 2000  # an end then varies by 1.5 % of the interval's width (one standard deviation, normal case)


@dataclass(frozen=True)
class Rate:
    """`count` of `n`, its share, and the interval's ends; share is None when n is 0."""

    count: int
    n: int
    share: float | None
    low: float
    high: float

    def __str__(self) -> str:
        if self.share is None:
            return "-"
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class PassK:
    """The share of requests whose answers adhere `k` times out of `k`."""

    k: int
    requests: int  # those with k answers or more: the share is over them
    left_out: int  # those with fewer
    share: float | None
    low: float
    high: float


def z_value(confidence: float = CONFIDENCE) -> float:
    """The two-sided normal quantile: 1.96 for 95 %."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson(count: int, n: int, confidence: float = CONFIDENCE) -> Rate:
    """The rate with Wilson's score interval (E. B. Wilson, JASA 22, 1927, p. 209).

    Equal to statsmodels' proportion_confint(method="wilson") and scipy's binomtest(...).proportion_ci(method="wilson"),
    as tests/eval/stats/test_intervals.py shows; written out because importing either takes 1.6 to 3 seconds.

    >>> str(wilson(95, 100))
    '95.0 % (88.8 to 97.8)'
    """
    if n == 0:
        return Rate(0, 0, None, 0.0, 1.0)
    return Rate(count, n, count / n, *_wilson_ends(count / n, n, confidence))


def _wilson_ends(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    z = z_value(confidence)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def clustered(
    shares: Sequence[float], clusters: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The ends of the 95 % interval of the mean of hits or shares when whole clusters (concepts) are resampled.

    Percentile bootstrap over clusters (Davison and Hinkley, Bootstrap Methods, 1997, sections 3.8 and 5.3), widened to
    Wilson's interval over the answers and to the end that as many clusters with only hits (or no hit) would have.  The
    bootstrap alone has no width when all hits are equal, and near that point it ranks one failure above none; with both
    bounds a further hit never lowers an end.  Of 500 simulated runs a setting (77 clusters of 4, shares 0.5 to
    0.99, correlations 0 to 0.9) it contained the true share in 89 to 100 %, the bootstrap alone in 53 to 96 %.
    """
    if not shares:
        return 0.0, 1.0
    low, high = bootstrap(shares, clusters, seed, resamples)
    rows = _wilson_ends(sum(shares) / len(shares), len(shares))
    edge = unseen(len(set(clusters)))
    return min(low, rows[0], 1 - edge), max(high, rows[1], edge)


def clustered_rate(hits: Sequence[bool], clusters: Sequence[str], seed: int = 0) -> Rate:
    """The rate with the ends of `clustered`; gates use it."""
    low, high = clustered(hits, clusters, seed)
    return Rate(sum(hits), len(hits), sum(hits) / len(hits) if hits else None, low, high)


def unseen(clusters: int) -> float:
    """The largest share that something may have although no cluster showed it: the upper end of Wilson's interval of 0."""
    return wilson(0, clusters).high


def bootstrap(
    values: Sequence[float], clusters: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the mean of `values` over resampled clusters; the same for the same seed.

    The draws depend only on the number of clusters, so neither the rows' order nor a changed value changes them.
    ValueError when there is nothing to draw or a value has no cluster.
    """
    import numpy as np

    if not values or len(values) != len(clusters):
        raise ValueError(
            f"{len(values)} values in {len(clusters)} clusters: expected one cluster for each value, and at least one value"
        )
    names, place = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(place, weights=np.asarray(values, dtype=float))
    sizes = np.bincount(place)
    drawn = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=resamples)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile((drawn @ sums) / (drawn @ sizes), [tail, 1 - tail])
    return float(low), float(high)


def pass_k(
    hits: Sequence[bool], requests: Sequence[str], k: int, clusters: Sequence[str] | None = None, seed: int = 0
) -> PassK:
    """pass^k over repeats: the chance that `k` answers to one request all adhere, mean over requests.

    With c of n repeats adhering a request counts C(c, k) / C(n, k) (Yao et al., tau-bench, arXiv:2406.12045, 2024);
    with n = k that is 1 when all adhere, else 0.  The interval is clustered by request, or by `clusters` (one for each
    hit) if given.  Requests with fewer than `k` answers are left out and counted.
    """
    if k < 1 or not len(hits) == len(requests) == len(clusters or requests):
        raise ValueError("expected k of 1 or more, and one request and one cluster for each hit")
    by_request: dict[str, list[bool]] = {}
    cluster_of: dict[str, str] = {}
    for hit, request, cluster in zip(hits, requests, clusters or requests, strict=True):
        by_request.setdefault(request, []).append(hit)
        cluster_of[request] = cluster
    asked = {name: repeats for name, repeats in by_request.items() if len(repeats) >= k}
    shares = [comb(sum(repeats), k) / comb(len(repeats), k) for repeats in asked.values()]
    low, high = clustered(shares, [cluster_of[name] for name in asked], seed)
    share = sum(shares) / len(shares) if shares else None
    return PassK(k, len(shares), len(by_request) - len(shares), share, low, high)


def smallest_difference(n: int, flips: int) -> float | None:
    """The smallest difference of two paired rates that McNemar's test over `n` requests finds in POWER of all runs.

    The exact test is a little stricter than the formula: it finds that difference in 73 to 79 % of all runs.

    From n = (z_a sqrt(d) + z_b sqrt(d - x^2))^2 / x^2 (R. J. Connor, Biometrics 43, 1987, p. 207), solved for the
    difference x; d is the share of requests on which the runs disagree, here flips / n.  A difference cannot be larger
    than d: where fewer flips were seen than that needs, d is set to x (every flip goes one way).
    None when no outcome of `n` requests would be significant.

    >>> round(smallest_difference(300, 30), 3)
    0.051
    """
    alpha = 1 - CONFIDENCE
    if n < 1 or 2 * 0.5**n > alpha:
        return None
    a, b = z_value(), NormalDist().inv_cdf(POWER)
    root = (a * sqrt(n) + b * sqrt(n - a * a + b * b)) / (n + b * b)
    return min(1.0, root * max(sqrt(flips / n), root))


def answers_needed(share: float, bound: float) -> int | None:
    """How many independent answers with this share put `bound` outside Wilson's interval; None when none would.

    Wilson's interval is the inverted score test, so n = z^2 bound (1 - bound) / (share - bound)^2.

    >>> answers_needed(0.95, 0.9), answers_needed(0.9, 0.9)
    (139, None)
    """
    return ceil(z_value() ** 2 * bound * (1 - bound) / (share - bound) ** 2) if share != bound else None
