"""Intervals contain the truth as often as they say, over thousands of simulated runs.

All runs of a simulation are columns of one array, so that each takes a matrix product.
"""

import numpy as np
import pytest

from valign.measure import Paired, Resampling, control_matrix, leakage
from valign.measure.bootstrap import counted, mean, weighted_mean
from valign.measure.rate import rate
from valign.values import load_system

RUNS = 3000
NOISE = 3 * np.sqrt(0.95 * 0.05 / RUNS)
"""Three standard errors of a simulated coverage."""


def draws(n, **more):
    return Resampling.of(n, seed=1, n_boot=1500, **more)


def coverage(found, truth):
    return ((found.low <= truth + 1e-9) & (truth - 1e-9 <= found.high)).mean()


def right(share, *, low=0.93, high=0.97):
    return low - NOISE / 2 <= share <= high + NOISE / 2


@pytest.mark.parametrize("n", [20, 60, 180])
@pytest.mark.parametrize("p", [0.15, 0.3, 0.5, 0.8])
def test_shares_in_the_middle(n, p):
    rows = (np.random.default_rng(n).random((n, RUNS)) < p).astype(float)
    assert right(coverage(mean(rows, draws(n)), p), high=0.98)


@pytest.mark.parametrize("n", [10, 60, 180])
@pytest.mark.parametrize("expected", [0.2, 1, 3, 3.6, 6])
def test_shares_near_nothing_never_claim_too_much(n, expected):
    """`expected` answers of n show the value; quantiles of replicates cover as little as 82 %."""
    p = min(expected / n, 0.5)
    rows = (np.random.default_rng(n).random((n, RUNS)) < p).astype(float)
    assert coverage(mean(rows, draws(n)), p) >= 0.92
    assert coverage(mean(1 - rows, draws(n)), 1 - p) >= 0.92


@pytest.mark.parametrize("n", [20, 60, 180])
@pytest.mark.parametrize("rates", [(0.4, 0.1), (0.2, 0.1), (0.1, 0.02), (0.03, 0.0), (0.01, 0.01)])
def test_changes_of_presence(n, rates):
    """Answers that gain and lose a value; the rest stays."""
    up, down = rates
    u = np.random.default_rng(n).random((n, RUNS))
    rows = (u < up).astype(float) - ((u >= up) & (u < up + down))
    share = coverage(counted(rows, draws(n), bottom=-1, top=1), up - down)
    rare = n * (up + down) < 15
    assert share >= 0.93 - NOISE / 2 and (rare or right(share))


@pytest.mark.parametrize("n", [8, 20, 100])
def test_means_of_scores_however_few(n):
    rows = np.random.default_rng(n).normal(0.2, 0.3, size=(n, RUNS))
    assert right(coverage(mean(rows, draws(n)), 0.2))


def test_prompts_with_several_seeds_count_once():
    rng = np.random.default_rng(0)
    prompts, seeds = 40, 3
    own = rng.normal(size=(prompts, RUNS)) * 0.5
    rows = np.repeat(own, seeds, axis=0) + rng.normal(size=(prompts * seeds, RUNS)) * 0.2
    clusters = np.repeat(np.arange(prompts), seeds)
    assert right(coverage(mean(rows, draws(len(rows), clusters=clusters)), 0.0))
    yes = (rows > 0).astype(float)
    assert right(coverage(mean(yes, draws(len(rows), clusters=clusters)), 0.5))
    assert coverage(mean(yes, draws(len(rows))), 0.5) < 0.9  # as if each answer were its own


def test_ratios_of_sums():
    rng = np.random.default_rng(2)
    n = 60
    tokens = rng.integers(5, 40, size=(n, RUNS)).astype(float)
    loss = tokens * (1.5 + 0.4 * rng.normal(size=(n, RUNS)))
    found = draws(n).estimates(lambda w: (w @ loss) / (w @ tokens))
    assert right(coverage(found, 1.5))
    facts = rng.integers(1, 5, size=(n, RUNS))
    wrong = rng.binomial(facts, 0.1).astype(float)
    found = draws(n).estimates(lambda w: (w @ wrong) / (w @ facts.astype(float)))
    assert right(coverage(found, 0.1), low=0.92)


def test_gains_of_profiles_and_means_over_targets():
    rng = np.random.default_rng(3)
    n, targets, runs = 60, 10, 200
    up, base = 0.25, 0.15
    hits, single = 0, []
    for _ in range(runs):
        common = rng.random((n, 1)) < 0.3  # some prompts are easy for every target
        plain = (rng.random((n, targets)) < base).astype(float)
        moved = np.stack([plain.copy() for _ in range(targets)])
        for i in range(targets):
            flips = rng.random(n) < np.where(common[:, 0], 2 * up, up * 4 / 7)
            moved[i, :, i] = np.maximum(plain[:, i], flips)
        found = control_matrix(Paired.of(plain, moved), Resampling.of(n, seed=0, n_boot=400))
        truth = (0.3 * 2 * up + 0.7 * up * 4 / 7) * (1 - base)
        hits += found.mean_gain.low <= truth <= found.mean_gain.high
        single.append((found.gain.low <= truth) & (truth <= found.gain.high))
    assert 0.92 <= hits / runs <= 0.98
    assert right(np.mean(single))


def test_leakage_that_is_not_there_is_not_found():
    """The debiased mean over the other values, when nothing but chance moves them."""
    rng, system, runs, n = np.random.default_rng(4), load_system("schwartz10"), 200, 60
    covered, centre = 0, []
    for _ in range(runs):
        plain, moved = ((rng.random((n, 10)) < 0.15).astype(float) for _ in range(2))
        found = leakage(Paired.of(plain, moved[None], targets=[0]), system,
                        Resampling.of(n, seed=0, n_boot=400))  # fmt: skip
        covered += found.mean.low[0] <= 0 <= found.mean.high[0]
        centre.append(found.mean.value[0])
    assert covered / runs >= 0.9
    assert abs(np.mean(centre)) < 3 * np.std(centre) / np.sqrt(runs)


@pytest.mark.parametrize("p", [0.05, 0.3])
def test_rates_of_independent_answers(p):
    n, seen = 60, np.random.default_rng(5).binomial(60, p, size=RUNS)
    ends = {k: rate(np.arange(n) < k) for k in np.unique(seen)}
    hits = [ends[k].low <= p <= ends[k].high for k in seen]
    assert right(np.mean(hits))


def test_replicates_of_counted_rows_are_those_of_the_slow_reference():
    """The closed form against drawing real and made-up answers one by one."""
    rows = np.array([1.0] * 4 + [0.0] * 36)
    found = counted(rows, draws(40), bottom=0, top=1)
    more = np.array([*rows, 1, 1, 0, 0])
    slow = more.mean() + 1.96 * more.std() / np.sqrt(len(more)) * np.array([-1, 1])
    assert (found.low, found.high) == pytest.approx(slow, abs=0.004)
    assert weighted_mean(np.ones((1, 40)), rows)[0] == found.value
