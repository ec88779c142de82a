"""What `mva_front.py` compares: the recipe of an adapter, the mixtures, the rows of the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from valign.measure.front import front_of
from valign.study.front import FrontPlan

STEPS, PAIRS = 32, 128
RECIPE = dict(steps=STEPS, batch_size=4, rank=8, alpha=16.0, rate=1.7e-3, save_every=16)
BETA = 0.4
"""Of DPO in all its forms. Rate, beta and steps: picked from six trials of plain DPO for one
value, read on training scenarios, as what moved the answers and left them fluent."""
PLAN = FrontPlan(search=12, judged=32, temperature=1.0, batch_size=128, max_new_tokens=80, seed=0)
NEUTRAL = 16
CORNERS = (0.0, -0.25)
"""Worst corners of the hypervolume, per value. From 0 a mixture counts only where it speaks for all
values; the second, added when the first plain adapters (of no method's own) were seen to push the
other value to nothing, also counts what lies on the axes."""
TAXES = ("fluent", "facts_kept", "facts_wrong")
LINE = (0.0, 0.5, 1.0, 1.5)

Mix = tuple[float, ...]


def mixtures(k: int) -> list[Mix]:
    """The candidates of k values: a grid, shares of one whole, and extrapolations."""
    if k == 2:
        return [*itertools.product(LINE, repeat=2), (0.25, 0.75), (0.75, 0.25)]
    grid = [*itertools.product((0.0, 0.5, 1.0), repeat=3)]
    far = [m for m in itertools.product((0.0, 0.5, 1.5), repeat=3) if 1.5 in m]
    return [*grid, *far, (1 / 3, 1 / 3, 1 / 3)]


def on_simplex(m: Mix) -> bool:
    return abs(sum(m) - 1) < 1e-6


def in_box(m: Mix) -> bool:
    return max(m) <= 1


@dataclass(frozen=True)
class Entry:
    """One row of the table: which answers it may use.

    Attributes:
        source: whose adapters; the name of a cell.
        allowed: which of its candidates.
    """

    source: str
    allowed: Callable[[Mix], bool] = lambda m: True


ENTRIES: dict[str, Entry] = {
    "MVA (hsic)": Entry("mva"),
    "MVA, w in [0, 1]": Entry("mva", in_box),
    "MVA, shares only": Entry("mva", on_simplex),
    "no penalty: task arithmetic on DPO": Entry("dpo"),
    "no penalty, w in [0, 1]": Entry("dpo", in_box),
    "rewarded soups": Entry("dpo", on_simplex),
    "MVA (hsic-released)": Entry("mva-released"),
    "MVA (orthogonal)": Entry("mva-orthogonal"),
    "MVA (cosine)": Entry("mva-cosine"),
    "MVA on positive sides (hsic; ours)": Entry("mva-sft"),
    "MVA on positive sides, w in [0, 1]": Entry("mva-sft", in_box),
    "sequential DPO": Entry("sequential"),
    "loss-weighted DPO": Entry("mixed"),
    "MODPO": Entry("modpo"),
    "TIES": Entry("ties"),
    "DARE": Entry("dare"),
    "MOD decoding": Entry("mod"),
    "SimPO, task arithmetic": Entry("simpo"),
    "SFT, task arithmetic": Entry("sft"),
    "SFT, w in [0, 1]": Entry("sft", in_box),
}


PENALTIES = {"mva": "hsic", "mva-released": "hsic-released", "mva-orthogonal": "orthogonal",
             "mva-cosine": "cosine"}  # fmt: skip
STAGES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("dpo", "mva"), 2),
    (("sequential", "mixed", "modpo"), 2),
    (("dpo", "mva"), 3),
    (("mva-orthogonal", "mva-released"), 2),
    (("ties", "dare"), 2),
    (("mod", "simpo", "sft", "mva-cosine"), 2),
    (("sequential", "mixed", "modpo"), 3),
    (("mva-sft",), 2),
    (("sft", "mva-sft"), 3),
)
"""What is made in which order: the main question first."""


def corners(k: int) -> list[Mix]:
    """Nothing, each value alone, all together: what interference is read from."""
    return [(0.0,) * k, *map(tuple, np.eye(k).tolist()), (1.0,) * k]


def fronted(points: np.ndarray, mixes: list[Mix], allowed: Callable[[Mix], bool]) -> list[int]:
    among = [i for i, m in enumerate(mixes) if allowed(m)]
    return [among[i] for i in front_of(points[among])] if among else []
