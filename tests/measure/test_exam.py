"""Value-weighted accuracy against numbers worked out by hand."""

import numpy as np
import pytest

from valign.measure.bootstrap import Resampling
from valign.measure.errors import MeasureError
from valign.measure.exam import exam

DRAWS = Resampling.of(4, seed=0, n_boot=200)


def test_figures_by_hand():
    found = exam([1, 0, 1, 0], [0.5, 0.3, 0.1, 0.1], [10, 20, 30, 40], DRAWS)
    assert found.accuracy.value == pytest.approx(0.5)
    assert found.value_accuracy.value == pytest.approx(0.6)
    assert found.length.value == pytest.approx(25)
    assert found.density.value == pytest.approx(60 / 25)
    assert found.density.low <= found.density.value <= found.density.high


def test_equal_values_make_it_plain_accuracy():
    found = exam([1, 0, 1, 1], np.full(4, 0.2), np.ones(4), DRAWS)
    assert found.value_accuracy.value == pytest.approx(found.accuracy.value)


def test_bad_input_is_refused():
    with pytest.raises(MeasureError, match="One row"):
        exam([1, 0], [1, 1, 1, 1], [1, 1, 1, 1], DRAWS)
    with pytest.raises(MeasureError, match="above 0"):
        exam([1, 0, 1, 1], np.zeros(4), np.ones(4), DRAWS)
