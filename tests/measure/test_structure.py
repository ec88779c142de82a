"""The circle: statistics on matrices with known answers, p-values, respondents."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import spearmanr

from valign.measure import MeasureError, Resampling
from valign.measure.circle import circle_test, correlations, structure
from valign.measure.estimate import Estimate
from valign.measure.permutation import label_shuffles, mantel, outward, p_value, spearman
from valign.measure.structure import (
    circle_distance,
    circle_rank,
    circumplex,
    congruence,
    order_index,
    order_swaps,
    ordinal_map,
    sinusoid,
)
from valign.values import NoCircleError, Value, ValueSystem, load_system

TEN = load_system("schwartz10")
NINETEEN = load_system("schwartz19")
EVEN = ValueSystem(
    "even", "Eight values at equal steps", "", tuple(
        Value(f"v{k}", f"V{k}", "x", angle=45.0 * k) for k in range(8)
    )
)  # fmt: skip


def perfect(system):
    return np.cos(np.deg2rad(circle_distance(system)))


def shuffled(system, seed=0):
    order = np.random.default_rng(seed).permutation(len(system))
    return perfect(system)[np.ix_(order, order)]


def respondents(system, n=80, noise=0.5, seed=0):
    """People scattered on a plane; values look at them from their angles."""
    rng = np.random.default_rng(seed)
    theta = np.deg2rad(system.angles())
    return rng.normal(size=(n, 2)) @ np.stack([np.cos(theta), np.sin(theta)]) + noise * rng.normal(
        size=(n, len(system))
    )


@pytest.mark.parametrize("system", [TEN, NINETEEN, EVEN], ids=lambda s: s.name)
def test_a_perfect_circle_has_every_best_number(system):
    c, d = perfect(system), circle_distance(system)
    assert circle_rank(c, d) == pytest.approx(1)
    assert order_index(c, d) == pytest.approx(1)
    fit, phase = sinusoid(np.cos(np.deg2rad(system.distance())), system.angles())
    assert fit == pytest.approx(1) and phase == pytest.approx(0, abs=1e-6)
    found = ordinal_map(c, system.angles())
    assert found.stress < 1e-6 and found.congruence == pytest.approx(1) and found.swaps == 0


def test_an_even_circle_is_a_perfect_circumplex():
    found = circumplex(perfect(EVEN))
    for name in ("gap", "fisher", "rotation", "variance"):
        assert getattr(found, name) == pytest.approx(0, abs=1e-10), name


def test_simple_structure_is_no_circumplex():
    c = np.kron(np.eye(2), np.ones((4, 4)))  # two bundles of four values
    found = circumplex(c + 1e-3 * np.diag(np.arange(8.0)))
    assert found.gap > 0.3 and found.rotation > 0.3


def test_opposites_swapped_are_the_worst_order():
    d = circle_distance(EVEN)
    c = -perfect(EVEN)  # neighbours repel, opposites attract
    np.fill_diagonal(c, 1)
    assert circle_rank(c, d) == pytest.approx(-1)
    assert order_index(c, d) == pytest.approx(-1)
    assert sinusoid(c, EVEN.angles())[1] == pytest.approx(180)


def test_a_turned_wave_has_its_turn_as_phase():
    theta = np.deg2rad(EVEN.angles())
    c = np.cos(theta[None, :] - theta[:, None] - np.deg2rad(30))
    fit, phase = sinusoid(c, EVEN.angles())
    assert fit == pytest.approx(1) and phase == pytest.approx(30)


def test_rounded_angles_are_evened_out():
    assert len(np.unique(circle_distance(NINETEEN))) == 10
    assert np.array_equal(circle_distance(TEN), TEN.distance())


def test_rank_statistics_agree_with_a_slow_reference():
    rng = np.random.default_rng(1)
    c = np.corrcoef(rng.normal(size=(30, 10)), rowvar=False)
    d = TEN.distance()
    pairs = [(i, j) for i in range(10) for j in range(i + 1, 10)]
    mine = [-c[p] for p in pairs]
    assert circle_rank(c, d) == pytest.approx(spearmanr(mine, [d[p] for p in pairs])[0])
    agree = violate = 0
    for a in pairs:
        for b in pairs:
            if d[a] < d[b]:
                agree += c[a] > c[b]
                violate += c[a] < c[b]
    total = sum(d[a] < d[b] for a in pairs for b in pairs)
    assert order_index(c, d) == pytest.approx((agree - violate) / total)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_statistics_are_bounded_and_batched(seed):
    rng = np.random.default_rng(seed)
    batch = np.stack([np.corrcoef(rng.normal(size=(12, 10)), rowvar=False) for _ in range(3)])
    d = TEN.distance()
    for statistic in (circle_rank, order_index):
        found = statistic(batch, d)
        assert found.shape == (3,) and (np.abs(found) <= 1 + 1e-12).all()
        assert found[1] == pytest.approx(statistic(batch[1], d))
    fit, phase = sinusoid(batch, TEN.angles())
    assert ((fit >= -1e-9) & (fit <= 1)).all() and ((phase >= 0) & (phase <= 180)).all()
    assert 0 <= congruence(batch[0], TEN.angles()) <= 1


@given(st.integers(0, 7), st.booleans())
def test_turning_or_mirroring_the_circle_changes_nothing(turn, mirror):
    rng = np.random.default_rng(0)
    c = np.corrcoef(rng.normal(size=(20, 8)), rowvar=False)
    order = np.roll(np.arange(8), turn)
    order = order[::-1] if mirror else order
    d, moved = circle_distance(EVEN), c[np.ix_(order, order)]
    assert circle_rank(moved, d) == pytest.approx(float(circle_rank(c, d)))
    assert order_index(moved, d) == pytest.approx(float(order_index(c, d)))
    assert circumplex(moved).fisher == pytest.approx(float(circumplex(c).fisher))
    assert order_swaps(EVEN.angles()[order], EVEN.angles()) == 0


def test_swaps_are_counted_round_the_circle():
    angles = EVEN.angles()
    swapped = angles.copy()
    swapped[[2, 3]] = swapped[[3, 2]]
    assert order_swaps(swapped, angles) == 1
    tied = TEN.angles() + np.array([0, 0, 0, 0, 0, 0, 5, -5, 0, 0])  # tradition before conformity
    assert order_swaps(tied, TEN.angles()) == 0


def test_intervals_hold_their_estimate():
    found = Estimate(0.5, 0.1, 0.4, 10)
    assert outward(found, bottom=-1, top=1) == Estimate(0.5, pytest.approx(0.1), 0.9, 10)
    assert outward(found, bottom=0.2, top=0.8) == Estimate(0.5, 0.2, 0.8, 10)
    assert np.isnan(outward(replace(found, low=float("nan"), high=float("nan")),
                            bottom=0, top=1).low)  # fmt: skip


def test_p_values_count_themselves():
    assert p_value(1.0, np.zeros(99)) == 0.01
    assert p_value(0.0, np.zeros(99)) == 1
    assert np.isnan(p_value(float("nan"), np.zeros(9)))
    assert (np.sort(label_shuffles(6, 50, 0), axis=1) == np.arange(6)).all()


def test_mantel_agrees_with_shuffling_by_hand():
    rng = np.random.default_rng(3)
    c, d = np.corrcoef(rng.normal(size=(15, 10)), rowvar=False), -TEN.distance()
    i, j = np.triu_indices(10, k=1)
    got = mantel(c, d, (i, j), permutations=200, seed=5)
    by_hand = [spearman(c[i, j], d[np.ix_(s, s)][i, j]) for s in label_shuffles(10, 200, 5)]
    assert got == p_value(float(spearman(c[i, j], d[i, j])), np.array(by_hand))


def test_circle_found_in_respondents_and_not_in_noise():
    draws = Resampling.of(80, seed=0, n_boot=60)
    quick = dict(permutations=200, map_permutations=19)
    found = structure(respondents(TEN), TEN, draws, **quick)
    for test in (found.circle_rank, found.order_index, found.fit, found.gap, found.fisher):
        assert test.p < 0.02
    assert found.circle_rank.estimate.low > 0.8 and found.congruence.p == 0.05
    assert found.phase.value < 15 and found.map.swaps <= 1
    noise = structure(np.random.default_rng(0).normal(size=(80, 10)), TEN, draws, **quick)
    assert noise.circle_rank.p > 0.05 and noise.circle_rank.estimate.low < 0.2
    assert noise.congruence.p > 0.05 and noise.congruence.estimate.value > 0.3  # flattered


def test_a_shuffled_circle_is_a_circumplex_in_the_wrong_order():
    x = respondents(TEN)[:, np.random.default_rng(4).permutation(10)]
    draws = Resampling.of(80, seed=0, n_boot=20)
    found = structure(x, TEN, draws, permutations=200, map_permutations=19)
    assert found.circle_rank.p > 0.05 and found.order_index.p > 0.05
    assert found.fisher.p < 0.02
    assert circle_rank(shuffled(TEN, 4), TEN.distance()) < 0.5


def test_weighted_correlations_are_those_of_repeated_rows():
    rng = np.random.default_rng(0)
    x, counts = rng.normal(size=(6, 3)), np.array([[2, 0, 1, 1, 3, 0]])
    again = np.repeat(x, counts[0], axis=0)
    assert np.allclose(correlations(counts.astype(float), x)[0], np.corrcoef(again, rowvar=False))
    still = correlations(np.array([[1.0, 0, 0, 0, 0, 0]]), x)[0]
    assert np.array_equal(still, np.eye(3))


def test_p_values_of_noise_are_uniform_enough():
    rng = np.random.default_rng(7)
    ps = [circle_test(rng.normal(size=(20, 10)), TEN, Resampling.of(20, seed=0, n_boot=2),
                      permutations=199).p for _ in range(100)]  # fmt: skip
    assert np.mean(np.array(ps) <= 0.1) < 0.2 and 0.35 < np.mean(ps) < 0.65


def test_what_cannot_be_tested_is_refused():
    draws = Resampling.of(5, seed=0, n_boot=10)
    with pytest.raises(MeasureError, match=r"\(respondents, 10\)"):
        structure(np.zeros((5, 9)), TEN, draws)
    x = np.random.default_rng(0).normal(size=(5, 10))
    with pytest.raises(NoCircleError):
        structure(x[:, :9], load_system("harm"), draws)
    x[:, 3] = 1
    with pytest.raises(MeasureError, match="achievement: every respondent"):
        structure(x, TEN, draws)
    x[0, 3] = np.nan
    with pytest.raises(MeasureError, match="lack a value"):
        structure(x, TEN, draws)
    with pytest.raises(MeasureError, match="too few"):
        sinusoid(np.eye(4), np.arange(4.0))
