"""The circle tested on respondents: statistics of `structure` with intervals and p-values.

Chance is never zero here: two principal axes and three numbers a value fit noise, too, and a map
that starts from the circle stays near it (congruence about .7 for random correlations). So every
statistic comes with a p-value: labels of the values shuffled (Mantel) where the theory's order
matters, each value's scores shuffled over respondents where it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from valign.measure.bootstrap import Resampling
from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate
from valign.measure.permutation import (
    Tested,
    label_shuffles,
    mantel,
    outward,
    over_chunks,
    p_value,
)
from valign.measure.structure import (
    Map,
    circle_distance,
    circle_rank,
    circumplex,
    congruence,
    ordinal_map,
    pair_order,
    sinusoid,
)
from valign.values import ValueSystem

_MAP_REPLICATES = 100
"""A map takes iterations; its intervals come from the first draws only."""

_CRITERIA = ("gap", "fisher", "rotation", "variance")


@dataclass(frozen=True, eq=False)
class Structure:
    """How far a value space forms the circle; see `structure` for each statistic.

    Attributes:
        correlations: C, shape (n_values, n_values).
        circle_rank, order_index, fit: 1 for a perfect circle, 0 by chance (`fit`, the sinusoids'
            R^2: above 0 by chance).
        phase: mean |phi| of the sinusoids, degrees.
        congruence: of the map with the circle.
        map: the map of all respondents.
        gap, fisher, rotation, variance: 0 for a circumplex; their p counts shuffles that are at
            most as large.
    """

    correlations: np.ndarray
    circle_rank: Tested
    order_index: Tested
    fit: Tested
    phase: Estimate
    congruence: Tested
    map: Map
    gap: Tested
    fisher: Tested
    rotation: Tested
    variance: Tested


def structure(
    scores: np.ndarray,
    system: ValueSystem,
    resampling: Resampling,
    *,
    permutations: int = 10_000,
    map_permutations: int = 99,
    seed: int = 0,
    level: float = 0.95,
) -> Structure:
    """Test value scores of respondents against a system's circle.

    Args:
        scores: (n_respondents, n_values) in the system's order; centred scores are usual (see
            `measure.questionnaire`).
        permutations: label shuffles. map_permutations: of the map, which is slow.
        seed: of the shuffles.

    Raises:
        MeasureError: another shape, missing scores, fewer than three respondents, or a value
            that no respondent answers differently.
        NoCircleError: the system has no circle.
    """
    x = _checked(scores, system)
    distance, angles, n = circle_distance(system), system.angles(), len(system)
    i, j = np.triu_indices(n, k=1)
    c = correlations(np.ones((1, len(x))), x)[0]

    def interval(
        of: Callable[[np.ndarray], np.ndarray],
        *,
        size: int = 200,
        bottom: float = 0.0,
        top: float = np.inf,
    ) -> Estimate:
        """A statistic of C with its interval; `size` bounds the memory."""
        found = resampling.estimate(
            lambda w: over_chunks(lambda part: of(correlations(part, x)), w, size), level=level
        )
        return outward(found, bottom=bottom, top=top)

    shuffles = label_shuffles(n, permutations, seed)

    def shuffled(of: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
        """The statistic with relabelled values."""
        return over_chunks(lambda s: of(c[s[:, :, None], s[:, None, :]]), shuffles, size)

    def order(similarity: np.ndarray) -> np.ndarray:
        return pair_order(similarity[..., i, j], distance[i, j])

    def fit(similarity: np.ndarray) -> np.ndarray:
        return sinusoid(similarity, angles)[0]

    chunk = max(1, 200_000 // len(i) ** 2)  # the order index compares all pairs of pairs
    return Structure(
        correlations=c,
        circle_rank=circle_test(
            scores, system, resampling, permutations=permutations, seed=seed, level=level
        ),
        order_index=Tested(
            interval(order, size=chunk, bottom=-1, top=1),
            p_value(float(order(c)), shuffled(order, chunk)),
        ),
        fit=Tested(interval(fit, top=1), p_value(float(fit(c)), shuffled(fit, 500))),
        phase=interval(lambda s: sinusoid(s, angles)[1], top=180),
        congruence=_map_tested(x, c, angles, resampling, shuffles[:map_permutations], level),
        map=ordinal_map(c, angles),
        **_circumplex_tested(x, c, interval, min(permutations, 1000), seed),
    )


def circle_test(
    scores: np.ndarray,
    system: ValueSystem,
    resampling: Resampling,
    *,
    permutations: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Tested:
    """`Structure.circle_rank` alone; arguments and errors as `structure`."""
    x, distance = _checked(scores, system), circle_distance(system)
    pairs = np.triu_indices(len(system), k=1)
    found = resampling.estimate(lambda w: circle_rank(correlations(w, x), distance), level=level)
    return Tested(
        outward(found, bottom=-1, top=1),
        mantel(
            correlations(np.ones((1, len(x))), x)[0], -distance, pairs,
            permutations=permutations, seed=seed,
        ),
    )  # fmt: skip


def correlations(weights: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Correlations of values over respondents under each weighting.

    Args:
        weights: (b, n_respondents).
        scores: (n_respondents, n_values), no missing.

    Returns:
        (b, n_values, n_values); a value that does not vary under a weighting correlates 0 with
        the others there.
    """
    share = weights / weights.sum(axis=1, keepdims=True)
    centre = share @ scores
    products = np.einsum("rv,rw->rvw", scores, scores).reshape(len(scores), -1)
    n = scores.shape[1]
    covariance = (share @ products).reshape(-1, n, n) - centre[:, :, None] * centre[:, None, :]
    scale = np.sqrt(np.clip(np.einsum("bvv->bv", covariance), 0, None))
    both = scale[:, :, None] * scale[:, None, :]
    found = np.divide(covariance, both, out=np.zeros_like(covariance), where=both > 1e-12)
    found[:, np.arange(n), np.arange(n)] = 1.0
    return np.clip(found, -1, 1)


def _checked(scores: np.ndarray, system: ValueSystem) -> np.ndarray:
    x = np.asarray(scores, dtype=float)
    if x.ndim != 2 or x.shape[1] != len(system) or len(x) < 3:
        raise MeasureError(
            f"scores must be (respondents, {len(system)}) for {system.name}, with at least three "
            f"respondents; got {x.shape}."
        )
    if np.isnan(x).any():
        raise MeasureError("Some respondents lack a value; leave them out before testing.")
    still = [name for name, s in zip(system.names, x.std(axis=0), strict=True) if s < 1e-9]
    if still:
        raise MeasureError(
            f"{', '.join(still)}: every respondent scores the same, so nothing correlates. Ask "
            "respondents who differ (personas), not one model several times at temperature 0."
        )
    # Correlations do not see shifts; without them the covariance above keeps its digits.
    return x - x.mean(axis=0)


def _map_tested(
    x: np.ndarray,
    c: np.ndarray,
    angles: np.ndarray,
    resampling: Resampling,
    shuffles: np.ndarray,
    level: float,
) -> Tested:
    point = congruence(c, angles)
    draws = correlations(resampling.counts[:_MAP_REPLICATES], x)
    boot = np.array([congruence(drawn, angles) for drawn in draws])
    chance = np.array([congruence(c[np.ix_(s, s)], angles) for s in shuffles])
    found = resampling.summarise(np.array(point), boot, level=level)
    return Tested(outward(found.at(), bottom=0, top=1), p_value(point, chance))


def _circumplex_tested(
    x: np.ndarray,
    c: np.ndarray,
    interval: Callable[[Callable[[np.ndarray], np.ndarray]], Estimate],
    permutations: int,
    seed: int,
) -> dict[str, Tested]:
    rng = np.random.default_rng(seed)
    chance = circumplex(
        np.stack([np.corrcoef(rng.permuted(x, axis=0), rowvar=False) for _ in range(permutations)])
    )
    point = circumplex(c)

    def criterion(name: str) -> Tested:
        return Tested(
            interval(lambda similarity: getattr(circumplex(similarity), name)),
            p_value(-float(getattr(point, name)), -getattr(chance, name)),
        )

    return {name: criterion(name) for name in _CRITERIA}
