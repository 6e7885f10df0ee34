"""Student's t, p values and corrected p values are SciPy's (1.17.1); the rest is drawn with a known truth."""

import math
from statistics import fmean, variance

import numpy as np
import pytest

from frdet.insight.ablation.statistics import (
    corrected,
    difference,
    mean_and_spread,
    seeds_to_tell,
    t_inside,
    t_quantile,
    verdict,
)

BASE, OTHER = (dict(enumerate(values)) for values in ([0.30, 0.31, 0.34, 0.36], [0.31, 0.35, 0.33, 0.40]))


@pytest.mark.parametrize(('freedom', 'expected'), [
    (1, 12.706204736174694), (2, 4.302652729749462), (3, 3.1824463052837078), (4, 2.7764451051977934),
    (7, 2.364624251592784), (10, 2.228138851986274), (99, 1.9842169515864174), (999, 1.9623414611334493),
])  # fmt: skip
def test_quantiles(freedom, expected):
    assert t_quantile(freedom) == pytest.approx(expected, rel=1e-12)


def test_quantile_of_another_level():
    assert t_quantile(5, 0.2) == pytest.approx(1.4758840488244815, rel=1e-12)


@pytest.mark.parametrize(('freedom', 't', 'p'), [
    (1, 0.5, 0.7048327646991335), (2, 1.3, 0.3232470318160403), (3, 4.2, 0.024632078176939253),
    (4, 2.5, 0.06676654481198814), (5, 0.001, 0.9992407867721976), (9, 7.0, 6.324738963736693e-05),
    (101, 1.98, 0.050424291623969233), (7, 0.0, 1.0),
])  # fmt: skip
def test_probabilities(freedom, t, p):
    assert 1 - t_inside(t, freedom) == pytest.approx(p, rel=1e-9)


def test_difference_of_pairs():
    """As scipy.stats.ttest_rel and its confidence_interval."""
    told = difference(BASE, OTHER)
    assert told.by_seed == pytest.approx({0: 0.01, 1: 0.04, 2: -0.01, 3: 0.04})
    assert (told.mean, told.spread) == pytest.approx((0.02, math.sqrt(0.0018 / 3)))
    assert told.interval == pytest.approx((-0.018976847908753328, 0.058976847908753335))
    assert told.p == told.q == pytest.approx(0.200976226198922)


def test_only_equal_seeds_are_pairs():
    told = difference({0: 0.1, 1: 0.2, 5: 0.9}, {1: 0.25, 0: 0.1, 7: 0.0})
    assert told.by_seed == pytest.approx({0: 0.0, 1: 0.05})
    assert list(told.by_seed) == [0, 1]
    assert difference({0: 0.1}, {1: 0.2}) is None


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_missing(value):
    assert difference({0: 0.1, 1: 0.2}, {0: value, 1: 0.25}).by_seed == pytest.approx({1: 0.05})
    assert difference({0: value}, {0: value}) is None


def test_mean_and_spread():
    assert mean_and_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7)))  # (4 + 1 + 9) / 2
    assert mean_and_spread([2.0]) == pytest.approx((2.0, math.nan), nan_ok=True)
    assert mean_and_spread([]) == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_seeds_to_tell():
    """With spread 1 the half width is 12.706 / sqrt 2 = 8.98, 4.303 / sqrt 3 = 2.48, 3.182 / 2 = 1.59, 1.24, 1.05."""
    assert [seeds_to_tell(mean, 1.0) for mean in (9.0, 8.9, 2.5, -2.4, 1.6, 1.5, 1.2)] == [2, 3, 3, 4, 4, 5, 6]
    assert seeds_to_tell(0.5, 0.0) == 2
    # 1.96234 / sqrt 1000 = 0.062055
    assert (seeds_to_tell(0.06206, 1.0), seeds_to_tell(0.06205, 1.0), seeds_to_tell(0.0, 1.0)) == (1000, None, None)


def test_so_many_seeds_tell():
    """Half of the pairs higher and half of them lower than the mean by the same: mean and spread stay the same."""
    told = difference(BASE, OTHER)
    for count, is_told in ((told.seeds_to_tell, True), (told.seeds_to_tell - 1, False)):
        half = t_quantile(count - 1) * told.spread / math.sqrt(count)
        assert (half < told.mean) is is_told


# p values: 0.01 * 5 / 1, 0.02 * 5 / 2, 0.03 * 5 / 3, 0.04 * 5 / 4 are all 0.05, and 0.5 stays.
def test_correction_as_scipy():
    told = difference(BASE, OTHER)
    given = {name: told.__class__(**{**told.__dict__, 'p': p}) for name, p in
             zip('abcdef', (0.01, 0.04, 0.03, 0.5, 0.02, None), strict=True)}  # fmt: skip
    found = corrected(given)
    assert [found[name].q for name in 'abcde'] == pytest.approx([0.05, 0.05, 0.05, 0.5, 0.05])
    assert found['f'].q is None
    assert list(found) == list(given)


def told_of(*pairs, q=None):
    found = difference(dict.fromkeys(range(len(pairs)), 0.0), dict(enumerate(pairs)))
    return found if q is None else found.__class__(**{**found.__dict__, 'q': q})


@pytest.mark.parametrize(('told', 'words'), [
    (None, 'too few runs: no seed is finished in both'),
    (told_of(0.1), 'too few runs: one pair has no interval, two have'),
    (told_of(0.0, 0.0), 'no difference'),
    (told_of(0.1, 0.1), 'better'),  # no spread at all
    (told_of(0.10, 0.11, 0.12), 'better'),
    (told_of(-0.10, -0.11, -0.12), 'worse'),
    (told_of(0.10, 0.11, 0.12, q=0.0504), 'not told apart among several variants (q = 0.050)'),
    # mean 2 and spread 1: three pairs have a half width of 2.48, four have 1.59
    (told_of(1.0, 2.0, 3.0), 'not told apart yet: 1 more seed'),
    # mean 1 and spread sqrt 2: 2.262 * 1.414 / sqrt 10 is 1.01, above 1; 2.228 * 1.414 / sqrt 11 is 0.950, below it
    (told_of(0.0, 2.0), 'not told apart yet: 9 more seeds'),
    (told_of(1.0, -1.0), 'not told apart: more than 1000 seeds would be needed'),
])  # fmt: skip
def test_verdicts(told, words):
    assert verdict(told) == words


def test_less_may_be_better():
    assert verdict(told_of(-0.1, -0.11, -0.12), less_is_better=True) == 'better'
    assert verdict(told_of(0.1, 0.11, 0.12), less_is_better=True) == 'worse'


TRUE = 0.005


def drawn_studies(count, seeds, *, common=0.01, own=0.004):
    """Values of the base and of a variant that is better by ``TRUE``; ``common`` is shared by the runs of a pair."""
    random = np.random.default_rng(seeds)
    for _ in range(count):
        shared = 0.3 + common * random.standard_normal(seeds)
        base, other = shared + own * random.standard_normal((2, seeds)) + [[0], [TRUE]]
        yield dict(enumerate(base.tolist())), dict(enumerate(other.tolist()))


@pytest.mark.parametrize('seeds', [2, 3, 5, 10])
def test_coverage_of_the_interval(seeds):
    intervals = [difference(*study).interval for study in drawn_studies(500, seeds)]
    assert 0.93 <= fmean(low <= TRUE <= high for low, high in intervals) <= 0.97


def welch_width(base, other):
    """Of the interval for runs that are no pairs; the degrees of freedom are rounded up, which makes it narrower."""
    parts = [variance(values.values()) / len(values) for values in (base, other)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(base) - 1) for part in parts)
    return 2 * t_quantile(math.ceil(freedom)) * math.sqrt(sum(parts))


def test_pairs_have_narrower_intervals():
    """The runs of a pair correlate by 0.01^2 / (0.01^2 + 0.004^2) = 0.86."""
    studies = list(drawn_studies(200, 5))
    paired = [high - low for low, high in (difference(*study).interval for study in studies)]
    assert fmean(paired) < 0.6 * fmean(welch_width(*study) for study in studies)


def test_false_discoveries_are_held():
    """Of 20 classes in each of 60 studies, 15 do not differ."""
    random = np.random.default_rng(0)
    shares: dict[str, list[float]] = {'p': [], 'q': []}
    powers = []
    for _ in range(60):
        true = np.where(np.arange(20) < 5, 0.02, 0.0)
        values = true[:, None] + 0.01 * random.standard_normal((20, 6))
        found = corrected(
            {k: difference(dict.fromkeys(range(6), 0.0), dict(enumerate(row))) for k, row in enumerate(values)}
        )
        for which, share in shares.items():
            called = [k for k, one in found.items() if getattr(one, which) <= 0.05]
            share.append(sum(k >= 5 for k in called) / max(len(called), 1))
        powers.append(sum(found[k].q <= 0.05 for k in range(5)) / 5)
    assert fmean(shares['q']) < 0.05 < 0.1 < fmean(shares['p'])
    assert fmean(powers) > 0.7
