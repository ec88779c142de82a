"""From trained adapters to a control of kind `weights`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from valign.control.weights import Adapter, LowRank, WeightsControl
from valign.methods.mva.penalties import MEASURES, dependence
from valign.methods.mva.training import Trained
from valign.values import Profile, ValueSystem


def worn(trained: Trained) -> Adapter:
    """The adapter as controls carry it."""
    return Adapter(
        trained.label,
        {module: LowRank(a, b, trained.scaling) for module, (a, b) in trained.factors.items()},
    )


def lone(system: ValueSystem, trained: Trained) -> WeightsControl:
    """One adapter, fully on."""
    adapter = worn(trained)
    return WeightsControl(
        target=Profile.of(system), adapters=(adapter,), weights={adapter.name: 1.0}
    )


def control_of(
    target: Profile, made: Sequence[Trained], *, weights: Sequence[float] | None = None
) -> WeightsControl:
    """A control of all adapters.

    Args:
        weights: one an adapter; by default the target's number for the value it is named after.
    """
    adapters = tuple(worn(trained) for trained in made)
    numbers = [target.named[a.name] for a in adapters] if weights is None else weights
    pairs = {f"{a.label} | {b.label}": pairwise(a, b) for a, b in combinations(made, 2)}
    return WeightsControl(
        target=target,
        adapters=adapters,
        weights={a.name: float(w) for a, w in zip(adapters, numbers, strict=True)},
        provenance=dict(training={t.label: t.figures for t in made}, dependence=pairs),
    )


def pairwise(a: Trained, b: Trained) -> dict[str, float]:
    """Every measure of dependence between two adapters, mean over modules."""
    found = {name: dependence(name, a.factors, b.factors) for name in MEASURES}
    return {name: round(fmean(each.values()), 6) for name, each in found.items() if each}
