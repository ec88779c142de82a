"""Volumes against counting, intervals, and the choice of a point."""

import itertools

import numpy as np
import pytest

from valign.measure.bootstrap import Resampling
from valign.measure.errors import MeasureError
from valign.measure.front import front_of, front_volume, preferred, volume


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_volume_is_the_share_of_lattice_cells_that_are_dominated(k):
    if k > 2:
        pytest.importorskip("moocore")
    rng = np.random.default_rng(k)
    side = 6
    for _ in range(5):
        points = rng.integers(-1, side + 1, (5, k)) / side
        cells = sum(
            bool((points >= (np.array(cell) + 1) / side - 1e-9).all(1).any())
            for cell in itertools.product(range(side), repeat=k)
        )
        assert volume(points.clip(max=1), np.zeros(k)) == pytest.approx(cells / side**k)


def test_nothing_above_the_corner_is_nothing():
    assert volume(np.array([[0.5, -0.1, 0.5]]), np.zeros(3)) == 0
    with pytest.raises(MeasureError, match="are needed"):
        volume(np.zeros((2, 3)), np.zeros(2))


def test_volume_of_means_with_an_interval_over_prompts():
    rng = np.random.default_rng(0)
    scores = rng.normal([[0.5, 0.2], [0.2, 0.5]], 0.3, (60, 2, 2))
    draws = Resampling.of(60, seed=0, n_boot=400)
    found = front_volume(scores, np.zeros(2), draws)
    assert found.value == pytest.approx(volume(scores.mean(0), np.zeros(2)))
    assert found.low < found.value < found.high
    slow = [volume(np.average(scores, 0, weights=c), np.zeros(2)) for c in draws.counts]
    assert found.low == pytest.approx(np.quantile(slow, 0.025), abs=0.01)


def test_the_front_names_each_place_once_in_order():
    points = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, 0.5], [0.4, 0.4], [np.nan, 2]])
    assert front_of(points) == [1, 2, 0]


def test_no_worse_than_95_percent_of_safe_most_helpful():
    points = np.array([[0.0, 1.0], [0.6, 0.96], [0.9, 0.90], [1.0, 0.0]])  # helpful, safe
    plain = np.array([0.0, 0.0])
    assert preferred(points, plain=plain, keep={1: 0.95}, most=0) == 1
    assert preferred(points, plain=plain, keep={1: 0.5}, most=0) == 2
    assert preferred(points, plain=plain, keep={}, most=0) == 3
    assert preferred(points, plain=plain, keep={0: 0.99, 1: 0.99}, most=0) is None
    moved = preferred(points - 0.5, plain=plain - 0.5, keep={1: 0.95}, most=0)
    assert moved == 1  # shares are of the gain over the plain model
