"""The ideal controller raises its target and, when it intervenes, nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from valign.world import ideal_presence
from valign.world.ideal import leakage

N = 1200
OFF = ~np.eye(10, dtype=bool)


def test_do_raises_only_the_target() -> None:
    shift = leakage(ideal_presence(N, 1, "do"))
    assert np.allclose(shift[OFF], 0)
    assert (np.diag(shift) > 0.7).all()


def test_see_brings_the_neighbours_along() -> None:
    shift = leakage(ideal_presence(N, 1, "see"))
    near = np.mean([shift[v, (v + 1) % 10] for v in range(10)])
    far = np.mean([shift[v, (v + 5) % 10] for v in range(10)])
    assert near > 0.02 > far
    assert np.abs(shift[OFF]).max() < 0.25


def test_unknown_mode_is_named() -> None:
    with pytest.raises(ValueError, match="unknown mode 'ask'"):
        ideal_presence(1, mode="ask")
