"""Does a set of values form Schwartz's circle? Statistics on a matrix of similarities.

C (n_values, n_values) holds correlations of value scores over respondents, or cosines of value
vectors, or anything else where 1 means "the same"; d_ij is the angular distance of the theory's
circle. Every statistic takes a batch of matrices (..., n, n). All equations are ours except the
circumplex criteria; `measure.circle` gives them intervals and p-values.

    circle rank     Spearman(-C_ij, d_ij) over i < j; 1 for a perfect circle
    order index     over pairs of pairs with d_ij < d_kl: (agreements - violations) / all, where
                    C_ij > C_kl agrees (Hubert and Arabie's index of order constraints)
    sinusoid        per value i, C_ij = a + b cos(theta_j - theta_i - phi) over j != i; mean R^2
                    and mean |phi|
    map             ordinal MDS of sqrt(2 (1 - C)) in the plane, started from the theory's circle;
                    stress-1, fit to the circle, and swaps of order
    circumplex      four criteria on the first two principal axes of C, label-free (Acton and
                    Revelle 2004): 0 is a circumplex
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.spatial import procrustes

from valign.measure.errors import MeasureError
from valign.measure.permutation import spearman
from valign.values import ValueSystem

_STEP = 1.0
"""Degrees below which two distances are one: angles in the data files are rounded."""

_MAP_STEPS = 100


def circle_distance(system: ValueSystem) -> np.ndarray:
    """Angular distances of the theory in degrees, shape (n, n), rounding evened out.

    Raises:
        NoCircleError: the system has no circle.
    """
    given = system.distance()
    levels = np.unique(given)
    starts = np.concatenate([[True], np.diff(levels) > _STEP])
    return levels[starts][np.cumsum(starts) - 1][np.searchsorted(levels, given)]


def circle_rank(similarity: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Spearman(-C_ij, d_ij) over i < j, shape (...)."""
    i, j = _above(similarity, distance)
    return spearman(-similarity[..., i, j], distance[i, j])


def order_index(similarity: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(agreements - violations) / comparisons that the circle orders, shape (...)."""
    i, j = _above(similarity, distance)
    return pair_order(similarity[..., i, j], distance[i, j])


def pair_order(similarity: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """The order index from pairs, both (..., n_pairs)."""
    closer = np.sign(distance[..., None, :] - distance[..., :, None])
    more_alike = np.sign(similarity[..., :, None] - similarity[..., None, :])
    compared = np.abs(closer).sum(axis=(-2, -1))
    found = (closer * more_alike).sum(axis=(-2, -1))
    return np.divide(
        found, compared, out=np.full(np.shape(found), np.nan), where=compared > 0
    )  # fmt: skip


def sinusoid(similarity: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine waves fitted to each value's similarities.

    Args:
        angles: of the theory, in degrees, shape (n,).

    Returns:
        mean R^2 in [0, 1] and mean |phi| in degrees [0, 180], both of shape (...).
    """
    n = len(angles)
    if n < 5:
        raise MeasureError(f"A cosine wave has 3 numbers to fit; {n} values are too few, use 5.")
    theta = np.deg2rad(angles)
    fits, phases = [], []
    for i in range(n):
        others = np.arange(n) != i
        gap = theta[others] - theta[i]
        design = np.stack([np.ones(n - 1), np.cos(gap), np.sin(gap)], axis=1)
        y = similarity[..., i, others]
        weights = y @ np.linalg.pinv(design).T
        rest = ((y - weights @ design.T) ** 2).sum(axis=-1)
        total = ((y - y.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
        fit = np.divide(rest, total, out=np.full(np.shape(total), np.nan), where=total > 1e-12)
        fits.append(1 - fit)
        phases.append(np.abs(np.rad2deg(np.arctan2(weights[..., 2], weights[..., 1]))))
    return np.mean(fits, axis=0), np.mean(phases, axis=0)


@dataclass(frozen=True, eq=False)
class Map:
    """An ordinal map of the values.

    Attributes:
        positions: (n, 2), turned onto the theory's circle; of unit size, centred.
        stress: Kruskal's stress-1; 0 is a map that keeps all ranks.
        congruence: Tucker's phi of the aligned map and the circle, in [0, 1]. The Procrustes
            disparity is 1 - phi^2.
        swaps: fewest swaps of neighbours that put the values into the theory's order round the
            circle, over all cuts and both directions.
    """

    positions: np.ndarray
    stress: float
    congruence: float
    swaps: int


def ordinal_map(similarity: np.ndarray, angles: np.ndarray) -> Map:
    """Theory-started ordinal MDS of one matrix (n, n); angles in degrees, (n,)."""
    circle = _on_circle(angles)
    positions, stress = _settled(similarity, circle)
    _, turned, disparity = procrustes(circle, positions)
    around = np.rad2deg(np.arctan2(turned[:, 1], turned[:, 0])) % 360
    return Map(turned, stress, _congruence(disparity), order_swaps(around, angles))


def congruence(similarity: np.ndarray, angles: np.ndarray) -> float:
    """`Map.congruence` alone."""
    circle = _on_circle(angles)
    return _congruence(procrustes(circle, _settled(similarity, circle)[0])[2])


def _on_circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))], axis=1)


def _congruence(disparity: float) -> float:
    return float(np.sqrt(max(0.0, 1 - disparity)))


def _settled(similarity: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """Positions and stress-1 of an ordinal map begun at `start`.

    SMACOF: distances of the map are made monotone in the dissimilarities (equal ones may differ),
    then every value moves to where those distances pull it (Guttman transform), until the stress
    stands still. scikit-learn has the same loop, several times slower at this size, and hundreds
    of maps are needed for one interval.
    """
    n = len(start)
    i, j = np.triu_indices(n, k=1)
    unlike = 1 - (similarity + similarity.T)[i, j] / 2
    positions, stress = start, np.inf
    for _ in range(_MAP_STEPS):
        distance = np.hypot(*(positions[i] - positions[j]).T)
        order = np.lexsort((distance, unlike))
        wanted = np.empty(len(i))
        wanted[order] = isotonic_regression(distance[order]).x
        before, stress = stress, np.sqrt(((distance - wanted) ** 2).sum() / (distance**2).sum())
        if before - stress < 1e-5:
            break
        wanted *= np.sqrt(len(i) / (wanted**2).sum())
        pull = np.divide(wanted, distance, out=np.zeros(len(i)), where=distance > 1e-12)
        guttman = np.zeros((n, n))
        guttman[i, j] = guttman[j, i] = -pull
        np.fill_diagonal(guttman, -guttman.sum(axis=1))
        positions = guttman @ positions / n
    return positions, float(stress)


def order_swaps(found: np.ndarray, theory: np.ndarray) -> int:
    """Fewest swaps of neighbours between two orders round a circle.

    Values with the same angle in the theory may stand either way. Both circles are cut once, at
    any place, and read in either direction.

    Args:
        found, theory: angles in degrees, (n,).
    """
    sequence = np.argsort(found, kind="stable")
    best = len(found) ** 2
    for order in (sequence, sequence[::-1]):
        for cut in range(len(order)):
            turned = np.roll(order, -cut)
            for start in np.unique(theory):
                place = ((theory - start) % 360)[turned]
                best = min(best, int(np.triu(place[:, None] > place[None, :], k=1).sum()))
    return best


@dataclass(frozen=True, eq=False)
class Circumplex:
    """Four criteria, each 0 for a perfect circumplex; arrays of one shape.

    Attributes:
        gap: variance of the gaps between neighbouring values, in squared radians. The gap that
            closes the circle counts (ours; published code leaves it out).
        fisher: spread of the vector lengths over their mean (equal axes).
        rotation: spread, over rotations of the axes, of the summed variances of squared loadings,
            over its mean.
        variance: the same for the variance of squared loadings on the first axis.
    """

    gap: np.ndarray
    fisher: np.ndarray
    rotation: np.ndarray
    variance: np.ndarray


def circumplex(similarity: np.ndarray) -> Circumplex:
    """Criteria of equal spacing, equal axes and no preferred rotation, for (..., n, n)."""
    roots, axes = np.linalg.eigh(similarity)
    loadings = axes[..., -2:] * np.sqrt(np.clip(roots[..., None, -2:], 0, None))
    x, y = loadings[..., 0], loadings[..., 1]
    around = np.sort(np.arctan2(y, x), axis=-1)
    closing = around[..., :1] + 2 * np.pi
    gaps = np.diff(np.concatenate([around, closing], axis=-1), axis=-1)
    length = np.hypot(x, y)
    turns = np.deg2rad(np.arange(0, 50, 5))[(...,) + (None,) * x.ndim]
    first = (x * np.cos(turns) + y * np.sin(turns)) ** 2
    second = (y * np.cos(turns) - x * np.sin(turns)) ** 2
    simple = ((first - second) ** 2 / 2).sum(axis=-1)
    total = (first + second).sum(axis=-1, keepdims=True)
    return Circumplex(
        gap=gaps.var(axis=-1, ddof=1),
        fisher=_spread(np.moveaxis(length, -1, 0)),
        rotation=_spread(simple),
        variance=_spread((first / total).var(axis=-1, ddof=1)),
    )


def _spread(x: np.ndarray) -> np.ndarray:
    """Standard deviation over mean along the first axis."""
    centre = x.mean(axis=0)
    return np.divide(
        x.std(axis=0, ddof=1), centre, out=np.full(np.shape(centre), np.nan), where=centre > 1e-12
    )


def _above(similarity: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if similarity.shape[-2:] != distance.shape:
        raise MeasureError(f"C is {similarity.shape}, the circle's distances {distance.shape}.")
    return np.triu_indices(len(distance), k=1)
