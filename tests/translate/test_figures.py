"""The figures against a plain count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from valign.translate.figures import cosines, figures


def test_by_hand() -> None:
    wanted = np.array([[1, -0.5, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]], float)
    found = np.array([[0.5, -0.5, 0], [0, 0, -1], [0, 0, 0], [1, 0, 0], [0, 0, 0]], float)
    got = figures(found, wanted)
    first = (0.5 + 0.25) / (np.sqrt(1.25) * np.sqrt(0.5))
    assert got["cosine"] == pytest.approx((first - 1 + 0) / 3)
    assert got["exact signs"] == 2 / 5
    assert got["exact signs, shifts"] == 1 / 3
    assert got["signs found"] == 2 / 4
    assert got["signs right"] == 2 / 4
    assert got["empty precision"] == 1 / 2
    assert got["empty recall"] == 1 / 2


def test_an_empty_label_has_no_cosine() -> None:
    assert np.isnan(cosines(np.ones((1, 3)), np.zeros((1, 3)))).all()


def test_a_share_without_ground_is_nan() -> None:
    got = figures(np.ones((2, 3)), np.ones((2, 3)))
    assert got["cosine"] == pytest.approx(1) and np.isnan(got["empty precision"])
