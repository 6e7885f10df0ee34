"""Statistics of a few paired runs: Student's t, intervals of differences, and the false discovery rate.

Student's t with a whole number of degrees of freedom is a finite sum (Abramowitz and Stegun, Handbook of Mathematical
Functions, 26.7.3 and 26.7.4), so no library of statistics is needed.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean, stdev
from typing import TypeVar

from frdet.insight.ablation.conclusions import Difference, Interval

Key = TypeVar('Key', bound=Hashable)

LEVEL = 0.05  # the chance of an error that is accepted
MOST_SEEDS = 1000  # more of them are not asked for


def t_inside(t: float, freedom: int) -> float:
    """The probability that Student's t with ``freedom`` degrees of freedom lies between -t and t, for t >= 0."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    is_odd = freedom % 2
    term = cosine if is_odd else 1.0
    total = 0.0
    for k in range(2 if is_odd else 1, freedom, 2):  # the factors are 2/3, 4/5, ... or 1/2, 3/4, ...
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + math.sin(angle) * total) if is_odd else math.sin(angle) * total


@cache
def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t with ``t_inside(t, freedom) == 1 - level``."""
    low, high = 0.0, 1.0
    while t_inside(high, freedom) < 1 - level:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if t_inside(middle, freedom) < 1 - level else (low, middle)
    return high


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation with n - 1; NaN where there are too few values."""
    return (fmean(values) if values else math.nan), (stdev(values) if len(values) > 1 else math.nan)


def difference(base: Mapping[int, float], other: Mapping[int, float]) -> Difference | None:
    """``other - base`` over the seeds that both have; None without any. A value that is not finite is left out."""
    every = {seed: other[seed] - base[seed] for seed in sorted(base.keys() & other.keys())}
    by_seed = {seed: value for seed, value in every.items() if math.isfinite(value)}
    if not by_seed:
        return None
    mean, spread = mean_and_spread(list(by_seed.values()))
    if len(by_seed) == 1:
        return Difference(by_seed, mean, spread, None, None, None, None)
    half, p = _half_width(spread, len(by_seed)), _p_value(mean, spread, len(by_seed))
    return Difference(by_seed, mean, spread, Interval(mean - half, mean + half), p, p, seeds_to_tell(mean, spread))


def _half_width(spread: float, count: int) -> float:
    """Half the width of the 95% interval of a mean."""
    return t_quantile(count - 1) * spread / math.sqrt(count)


def _p_value(mean: float, spread: float, count: int) -> float:
    """The probability of a mean at least as far from 0, if there is no difference."""
    if spread == 0:
        return float(mean == 0)
    return max(0.0, 1 - t_inside(abs(mean) / spread * math.sqrt(count), count - 1))


def seeds_to_tell(mean: float, spread: float) -> int | None:
    """The least number of pairs whose 95% interval excludes 0 with this mean and spread; None above ``MOST_SEEDS``."""

    def is_told(count: int) -> bool:
        return _half_width(spread, count) < abs(mean)

    low, high = 1, MOST_SEEDS
    if not is_told(high):
        return None
    while high - low > 1:  # the width of the interval falls with the number of pairs
        middle = (low + high) // 2
        low, high = (low, middle) if is_told(middle) else (middle, high)
    return high


def corrected(differences: Mapping[Key, Difference]) -> dict[Key, Difference]:
    """The differences with q: the p value corrected for their number (Benjamini and Hochberg, 1995).

    Among the differences with q <= 0.05, at most 5% are expected to be by chance.
    """
    p = {name: one.p for name, one in differences.items() if one.p is not None}
    q, least = dict[Key, float](), 1.0
    for rank, name in zip(range(len(p), 0, -1), sorted(p, key=lambda name: -p[name]), strict=True):
        least = min(least, p[name] * len(p) / rank)
        q[name] = least
    return {name: replace(one, q=q.get(name)) for name, one in differences.items()}


def verdict(one: Difference | None, *, less_is_better: bool = False) -> str:
    """What a difference says, in words.

    A variant is better or worse if the interval excludes 0, and q says so too where several variants are compared.
    """
    if one is None:
        return 'too few runs: no seed is finished in both'
    if one.interval is None:
        return 'too few runs: one pair has no interval, two have'
    if not any(one.by_seed.values()):
        return 'no difference'
    if not one.interval.low <= 0 <= one.interval.high:
        if one.q is not None and one.q > LEVEL:
            return f'not told apart among several variants (q = {one.q:.3f})'
        return 'better' if (one.mean < 0) == less_is_better else 'worse'
    if one.seeds_to_tell is None:
        return f'not told apart: more than {MOST_SEEDS} seeds would be needed'
    more = one.seeds_to_tell - len(one.by_seed)
    return f'not told apart yet: {more} more seed{"s" * (more > 1)}'
