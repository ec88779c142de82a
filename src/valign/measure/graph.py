"""The causal graph of values inside a model, and whether it foretells side effects.

After "Are the Values of LLMs Structurally Aligned with Humans? A Causal Perspective" (arXiv
2501.00581): interventions (role prompts, SAE features, controls) give a matrix of value scores,
one row a setting; the PC algorithm finds directed edges between values; an edge that the others
already imply is dropped; then, for new interventions k with c_k(u) = 1 where value u changed,

    F(u | v)      = mean of c_k(u) over the k with c_k(v) = 1
    Expected(v)   = mean of F(u | v) over descendants u of v
    Unexpected(v) = mean of F(u | v) over the other u != v

A good graph has Expected above Unexpected. Fisher's z takes columns as Gaussian while value scores
are bounded and coarse, so there is a variant on normal scores of ranks (ours), and edges can be
counted over bootstrap samples (ours).

The PC algorithm is causal-learn's: `pip install 'valign[graph]'`. All else needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from valign.measure.bootstrap import Estimates, Resampling, weighted_mean
from valign.measure.errors import MeasureError
from valign.measure.permutation import Tested, label_shuffles, p_value


@dataclass(frozen=True, eq=False)
class ValueGraph:
    """A directed graph over values.

    Attributes:
        names: the values.
        edges: edges[i, j] is True where i acts on j, (n, n); cycles may occur.
    """

    names: tuple[str, ...]
    edges: np.ndarray

    @classmethod
    def of(cls, names: Iterable[str], pairs: Iterable[tuple[str, str]]) -> ValueGraph:
        """A graph from (cause, effect) pairs.

        Raises:
            MeasureError: a pair that names no value, or an edge from a value to itself.
        """
        names = tuple(names)
        edges = np.zeros((len(names), len(names)), dtype=bool)
        for cause, effect in pairs:
            if cause == effect or cause not in names or effect not in names:
                raise MeasureError(f"{cause} > {effect} is no edge between two of {names}.")
            edges[names.index(cause), names.index(effect)] = True
        return cls(names, edges)

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(cause, effect) of every edge, in order of the names."""
        return tuple((self.names[i], self.names[j]) for i, j in np.argwhere(self.edges))

    def descendants(self) -> np.ndarray:
        """[i, j] is True where a path leads from i to another value j, (n, n)."""
        found = _reachable(self.edges)
        np.fill_diagonal(found, False)
        return found

    def reduced(self) -> ValueGraph:
        """Without edges that a longer path replaces; what can be reached stays the same.

        Edges are tried in order of the names. A graph with cycles has several reductions, and the
        order decides which one comes out (greedy, as in the published code). One pass is enough:
        dropping an edge never makes an earlier one replaceable.
        """
        kept = self.edges.copy()
        for i, j in np.argwhere(kept):
            kept[i, j] = False
            kept[i, j] = not _reachable(kept)[i, j]
        return ValueGraph(self.names, kept)


def discover(
    scores: np.ndarray, names: Iterable[str], *, alpha: float = 0.05, ranks: bool = False
) -> ValueGraph:
    """The PC algorithm with Fisher's z; not yet reduced.

    Undirected and two-headed edges become two directed ones, as published. Values that never
    change stand in the graph without edges.

    Args:
        scores: (n_settings, n_values), no missing; raw scores (centred ones determine each other).
        alpha: level of the tests of independence.
        ranks: use normal scores of ranks.

    Raises:
        MeasureError: causal-learn is not installed, or scores that are missing, too few or
            determined by each other.
    """
    names = tuple(names)
    x = _complete(scores, names)
    moving = np.flatnonzero(np.ptp(x, axis=0) > 1e-12)
    edges = np.zeros((len(names), len(names)), dtype=bool)
    if len(moving) > 1:
        ends = _pc(_normal_scores(x[:, moving]) if ranks else x[:, moving], alpha)
        # causal-learn: ends[j, i] is the mark at j of the edge i - j; 1 an arrowhead, -1 a tail
        found = (ends.T == 1) | ((ends == -1) & (ends.T == -1))
        edges[np.ix_(moving, moving)] = found
    return ValueGraph(names, edges)


def edge_stability(
    scores: np.ndarray,
    names: Iterable[str],
    *,
    seed: int,
    n_boot: int = 200,
    alpha: float = 0.05,
    ranks: bool = False,
) -> np.ndarray:
    """Share of bootstrap samples of the settings in which each edge is found, (n, n).

    Keep edges above one half: `ValueGraph(names, edge_stability(...) > 0.5)`.
    """
    names = tuple(names)
    x = _complete(scores, names)
    rng = np.random.default_rng(seed)
    total = np.zeros((len(names), len(names)))
    for _ in range(n_boot):
        drawn = x[rng.integers(len(x), size=len(x))]
        total += discover(drawn, names, alpha=alpha, ranks=ranks).edges
    return total / n_boot


@dataclass(frozen=True, eq=False)
class SideEffects:
    """How well a graph foretells what else changes.

    Attributes:
        expected, unexpected: per value, (n,); NaN where a value never changed, or has no
            (non-)descendants.
        mean_expected, mean_unexpected: over values; shape ().
        gap: mean expected - mean unexpected; p shuffles the graph's labels.
    """

    expected: Estimates
    unexpected: Estimates
    mean_expected: Estimates
    mean_unexpected: Estimates
    gap: Tested


def side_effects(
    changed: np.ndarray,
    graph: ValueGraph,
    resampling: Resampling,
    *,
    permutations: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> SideEffects:
    """Expected and unexpected shares over interventions.

    Args:
        changed: c_k(v), bool, (n_interventions, n_values). Interventions that share a base setting
            are not independent: pass the base as `clusters` of the resampling.
    """
    c = np.asarray(changed).astype(float)
    if c.ndim != 2 or c.shape[1] != len(graph.names) or not np.isin(c, (0, 1)).all():
        raise MeasureError(
            f"changed must be yes or no, (n_interventions, {len(graph.names)}); got {c.shape}."
        )
    below = graph.descendants()
    beside = ~below & ~np.eye(len(below), dtype=bool)

    def shares(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return _masked_mean(_given(weights, c), mask)

    def average(weights: np.ndarray, mask: np.ndarray) -> np.ndarray:
        found = shares(weights, mask)
        return _masked_mean(found, np.ones(found.shape[-1], dtype=bool))

    ones = np.ones((1, len(c)))
    given = _given(ones, c)[0]
    orders = label_shuffles(len(below), permutations, seed)
    shuffled = np.array([_gap(given, below[np.ix_(s, s)], beside[np.ix_(s, s)]) for s in orders])
    return SideEffects(
        expected=resampling.estimates(lambda w: shares(w, below), level=level),
        unexpected=resampling.estimates(lambda w: shares(w, beside), level=level),
        mean_expected=resampling.estimates(lambda w: average(w, below), level=level),
        mean_unexpected=resampling.estimates(lambda w: average(w, beside), level=level),
        gap=Tested(
            resampling.estimate(lambda w: average(w, below) - average(w, beside), level=level),
            p_value(_gap(given, below, beside), shuffled[~np.isnan(shuffled)]),
        ),
    )


def changes(scores: np.ndarray, base: np.ndarray) -> np.ndarray:
    """c_k(v): which values an intervention changed, bool; scores and base (n, n_values)."""
    return np.abs(np.asarray(scores, dtype=float) - np.asarray(base, dtype=float)) > 1e-9


def _given(weights: np.ndarray, c: np.ndarray) -> np.ndarray:
    """F(u | v) as [..., v, u]; NaN where v never changed."""
    rows = np.where(c[:, :, None] == 1, c[:, None, :], np.nan)
    return weighted_mean(weights, rows)


def _gap(given: np.ndarray, below: np.ndarray, beside: np.ndarray) -> float:
    every = np.ones(len(given), dtype=bool)
    return float(_masked_mean(_masked_mean(given, below), every)
                 - _masked_mean(_masked_mean(given, beside), every))  # fmt: skip


def _masked_mean(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over the last axis where `mask` and not NaN; NaN where nothing is left."""
    use = mask & ~np.isnan(x)
    count = use.sum(axis=-1)
    total = np.where(use, x, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _reachable(edges: np.ndarray) -> np.ndarray:
    """Transitive closure (Warshall)."""
    found = edges.copy()
    for k in range(len(found)):
        found |= found[:, [k]] & found[[k], :]
    return found


def _complete(scores: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    x = np.asarray(scores, dtype=float)
    if x.ndim != 2 or x.shape[1] != len(names) or len(x) <= len(names) + 3 or np.isnan(x).any():
        raise MeasureError(
            f"Scores must be complete, (n_settings, {len(names)}), with more than "
            f"{len(names) + 3} settings; got {x.shape}."
        )
    return x


def _normal_scores(x: np.ndarray) -> np.ndarray:
    return norm.ppf((rankdata(x, axis=0) - 0.5) / len(x))


def _pc(x: np.ndarray, alpha: float) -> np.ndarray:
    try:
        from causallearn.search.ConstraintBased.PC import pc
    except ImportError:
        raise MeasureError(
            "Finding a graph needs causal-learn: pip install 'valign[graph]'"
        ) from None
    if np.linalg.cond(np.corrcoef(x, rowvar=False)) > 1e10:
        raise MeasureError(
            "Some values are determined by the others (centred scores are): pass raw scores, or "
            "leave one out."
        )
    return pc(x, alpha=alpha, indep_test="fisherz", show_progress=False, verbose=False).G.graph
