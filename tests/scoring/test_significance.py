"""Every test against another implementation, or a simulation of which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import normal_power

from mmrobust.scoring.significance import (
    delong,
    detectable,
    holm,
    mcnemar,
    p_values,
    placements,
    rules_out,
)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (3, 0), (9, 1), (5, 5), (20, 35)])
def test_mcnemar_is_statsmodels(lost, gained):
    expected = statsmodels_mcnemar([[50, lost], [gained, 50]], exact=True).pvalue
    assert mcnemar([lost], [gained], mid_p=False)[0] == pytest.approx(expected)


def test_mid_p_counts_the_observed_split_half():
    assert mcnemar([9], [1])[0] == pytest.approx(2 * stats.binom.cdf(1, 10, 0.5) - stats.binom.pmf(1, 10, 0.5))
    assert mcnemar([4, 0], [4, 0]).tolist() == pytest.approx([1.0, 1.0])


def test_mcnemar_keeps_its_level():
    random = np.random.default_rng(0)
    disagreeing = random.binomial(300, 0.1, 20_000)
    lost = random.binomial(disagreeing, 0.5)
    for mid_p, least in ((True, 0.03), (False, 0.02)):
        assert least < (mcnemar(lost, disagreeing - lost, mid_p=mid_p) <= 0.05).mean() <= 0.05


def test_auroc_from_placements_is_scikit_learns():
    random = np.random.default_rng(0)
    positive = random.random(300) < 0.4
    for scores in (random.normal(size=300) + positive, np.round(random.normal(size=300) + positive)):
        assert placements(scores, positive).auroc == pytest.approx(roc_auc_score(positive, scores))
        assert placements(scores, positive).negatives.mean() == pytest.approx(roc_auc_score(positive, scores))


def test_delongs_error_is_the_spread_of_the_difference():
    """Over 1,000 draws of 200 samples: the mean of the errors against how the differences really scatter."""
    random = np.random.default_rng(0)
    differences, errors, p = [], [], []
    for _ in range(1000):
        positive = random.random(200) < 0.4
        shared = random.normal(size=200) + positive
        first, second = (placements(shared + random.normal(size=200), positive) for _ in range(2))
        error, value = delong(first, second)
        differences.append(second.auroc - first.auroc)
        errors.append(error)
        p.append(value)
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.07)
    assert 0.035 < np.mean(np.asarray(p) <= 0.05) < 0.065


def test_delong_by_its_own_formula():
    random = np.random.default_rng(1)
    positive = np.arange(60) % 3 == 0
    a, b = random.normal(size=60) + positive, np.round(random.normal(size=60) + 2 * positive)
    kernels = []
    for scores in (a, b):
        over = scores[positive][:, None] - scores[~positive]
        kernels.append((over > 0) + 0.5 * (over == 0))
    rows, columns = (np.cov([k.mean(axis=axis) for k in kernels]) for axis in (1, 0))
    covariance = rows / positive.sum() + columns / (~positive).sum()
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error, p = delong(placements(a, positive), placements(b, positive))
    assert error == pytest.approx(np.sqrt(variance))
    z = (kernels[1].mean() - kernels[0].mean()) / np.sqrt(variance)
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert delong(placements(a, positive), placements(a, positive)) == (0.0, 1.0)


def test_holm_is_statsmodels():
    p = np.random.default_rng(0).random(40) ** 3
    assert np.minimum(holm(p), 1).tolist() == pytest.approx(multipletests(p, method="holm")[1].tolist())


def test_p_values_are_students():
    t, degrees = np.asarray([-2.0, 0.0, 1.0]), np.asarray([3.0, 10.0, 1e6])
    assert p_values(t * 0.1, np.full(3, 0.1), degrees, two_sided=False) == pytest.approx(stats.t.cdf(t, degrees))
    assert p_values(t, np.ones(3), degrees, two_sided=True) == pytest.approx(2 * stats.t.sf(np.abs(t), degrees))
    certain = p_values(np.asarray([-0.1, 0.0, 0.1]), np.zeros(3), degrees, two_sided=False)
    assert certain.tolist() == [0.0, 0.5, 1.0]  # every sample says the same


@pytest.mark.parametrize("two_sided", [True, False])
def test_the_smallest_difference_is_found_with_its_power(two_sided):
    error, many = np.asarray([0.02]), np.asarray([1e6])
    level, size = 0.05 / (1 + two_sided), np.asarray([1e12])  # so many samples that their error alone counts
    smallest = detectable(error, many, size, level)[0]
    sided = "two-sided" if two_sided else "larger"
    assert normal_power(smallest, 1, 0.05, alternative=sided, sigma=0.02) == pytest.approx(0.8, abs=1e-3)
    draws = np.random.default_rng(0).normal(-smallest, 0.02, 20_000)
    found = p_values(draws, np.full(len(draws), 0.02), np.full(len(draws), 1e6), two_sided=two_sided) <= 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert detectable(error, np.asarray([3.0]), size, level)[0] > 1.2 * smallest


def test_what_is_not_defined_is_no_question():
    corrected = holm(np.asarray([np.nan, 0.01, 0.04, np.nan]))
    assert corrected[1:3].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(corrected[[0, 3]]).all()
    p = p_values(np.asarray([np.nan, 0.1, 0.0]), np.asarray([0.1, np.nan, 0.0]), np.full(3, 9.0), two_sided=True)
    assert np.isnan(p).tolist() == [True, True, False]


def test_one_sided_mcnemar_is_the_mid_p_of_a_fair_coin():
    for lost, gained in ((9, 0), (5, 2), (3, 3), (0, 4)):
        exact = stats.binomtest(gained, lost + gained, alternative="less").pvalue
        point = stats.binom.pmf(gained, lost + gained, 0.5)
        assert mcnemar(lost, gained, two_sided=False) == pytest.approx(exact - point / 2)
    assert mcnemar(0, 0, two_sided=False) == 0.5
    assert mcnemar(9, 0, two_sided=False) == pytest.approx(0.5**10)


@pytest.mark.parametrize("churn", [0.0, 0.1])
def test_a_detectable_drop_is_found_at_least_four_times_out_of_five(churn):
    """Samples are lost and gained at random, and a share D on top is lost: the test finds it with 80 % power.

    Without any churn the test needs whole samples, and D is a little larger than it would have to be.
    """
    samples, level, random = 1000, 0.05 / 33, np.random.default_rng(0)
    error = np.sqrt(churn / samples)
    drop = float(detectable(np.asarray([error]), np.asarray([1e6]), np.asarray([samples]), level)[0])
    kinds = random.multinomial(samples, [churn / 2 + drop, churn / 2, 1 - churn - drop], size=4000)
    found = mcnemar(kinds[:, 0], kinds[:, 1], two_sided=False) <= level
    assert 0.76 <= found.mean() <= (0.97 if churn == 0 else 0.86)


def test_a_few_samples_that_agree_show_little():
    none = np.zeros(1)
    shown = [float(detectable(none, np.asarray([1e6]), np.asarray([n]), 0.05)[0]) for n in (10, 100, 1000)]
    assert shown == pytest.approx([0.618, 0.0618, 0.00618], rel=0.01)  # (1.645 + 0.842)² / n


@pytest.mark.parametrize(("drop", "churn"), [(0.02, 0.0), (0.02, 0.1), (0.05, 0.2)])
def test_a_drop_that_is_there_is_rarely_ruled_out(drop, churn):
    samples, random = 1000, np.random.default_rng(1)
    lost, gained, _ = random.multinomial(samples, [churn / 2 + drop, churn / 2, 1 - churn - drop], size=5000).T
    difference = (gained - lost) / samples
    error = np.sqrt(((lost + gained) / samples - difference**2) / samples)
    out = rules_out(difference, error, np.full(5000, 1e6), np.full(5000, samples), np.full(5000, drop), 0.05)
    assert out.mean() <= 0.055


def test_what_got_better_rules_a_drop_out():
    few, many = (rules_out(*np.asarray([[0.0], [0.0], [1e6], [n], [0.01]]), 0.05)[0] for n in (100, 300))
    assert (few, many) == (False, True)  # nobody of 300 is lost: the rule of three
    assert rules_out(*np.asarray([[0.1], [0.03], [100], [160], [0.01]]), 0.05)[0]
    assert not rules_out(*np.asarray([[0.1], [0.03], [100], [160], [0.0]]), 0.05)[0]
