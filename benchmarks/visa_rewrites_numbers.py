"""The figures of `visa_rewrites.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from visa_rewrites_arms import Bench

from valign.corpora.triplets import Triplet
from valign.detect import Detector
from valign.measure import Resampling
from valign.measure.bootstrap import mean
from valign.measure.rewriting import distance, figures, reached, success, success_curve
from valign.methods.visa.guards import copied, length_ratio, repetition, words
from valign.world import WorldJudge
from valign.world.detector import WorldDetector
from valign.world.rewrites import WorldFidelity, all_facts

LARGEST, LEAST = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0), (0.3, 0.5, 0.7, 0.9)


def facts(judged: Sequence[Triplet], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Per rewrite: share of the source's facts kept, and whether a fact was added."""
    kept, added = [], []
    for triplet, text in zip(judged, texts, strict=True):
        known, said = all_facts(triplet.source), all_facts(text)
        kept.append(len(known & said) / max(len(known), 1))
        added.append(len(said - known) / max(len(said), 1))
    return np.array(kept), np.array(added)


def favourites(detector: Detector, known: Collection[str], *, each: int = 10) -> set[str]:
    """The words that score highest for each value, `each` a value, when they stand alone.

    A rewriter that plays to its detector says more of them than the reference rewrites do.
    """
    listed = sorted(known)
    scores = np.abs(detector.score(listed))
    best = np.argsort(-scores, axis=0, kind="stable")[:each]
    return {listed[i] for column, own in enumerate(best.T) for i in own if scores[i, column] > 0}


def measure(benches: Sequence[Bench], arm: str) -> dict[str, Any]:
    """All figures of one arm over all seeds."""
    judged = [t for bench in benches for t in bench.judged]
    texts = [text for bench in benches for text in bench.texts(arm)]
    judge, fidelity = WorldDetector(), WorldFidelity()
    scores = judge.score(texts)
    original = np.array([t.original for t in judged])
    target = np.array([t.target for t in judged])
    faithful = fidelity.judge([t.source for t in judged], texts)
    draws = Resampling.of(len(texts), seed=0, n_boot=2000)
    found = {k: asdict(v) for k, v in vars(
        figures(scores, original, target, faithful, draws)
    ).items()}  # fmt: skip
    kept, added = facts(judged, texts)
    far, both = distance(scores, target), faithful.mean(axis=1)
    readings = [WorldJudge().read({}, text) for text in texts]
    tuner = benches[0].reward.detector
    tuned = tuner.score(texts)
    lures = favourites(tuner, {w for t in judged for w in words(t.source + " " + t.rewrite)})
    extra = {
        "facts_kept": kept,
        "facts_added": added,
        "all_facts_kept_none_added": (kept == 1) & (added == 0),
        "moved": (np.abs(target - original).sum(1) > np.abs(target - scores).sum(1)).astype(float),
        "exact": ((far < 1e-6) & (faithful.min(axis=1) == 1)).astype(float),
        "fluent": np.array([float(r.fluent) for r in readings]),
        "length_ratio": np.array(
            [length_ratio(t.source, x) for t, x in zip(judged, texts, strict=True)]
        ),
        "repetition": np.array([repetition(x) for x in texts]),
        "copied": np.array([copied(t.source, x) for t, x in zip(judged, texts, strict=True)]),
        "tuner_minus_judge": np.abs(tuned - scores).sum(axis=1),
        "lured": np.array([np.mean([w in lures for w in words(x)] or [0]) for x in texts]),
    }
    for name, rows in extra.items():
        found[name] = asdict(mean(np.asarray(rows, dtype=float), draws).at())
    curve = success_curve(far, both, draws, largest=LARGEST, least=LEAST)
    found["jsr_curve"] = {
        "largest": LARGEST, "least": LEAST, "value": curve.value.tolist(),
        "low": curve.low.tolist(), "high": curve.high.tolist(),
    }  # fmt: skip
    return found


def compared(benches: Sequence[Bench], arms: Sequence[str]) -> dict[str, Any]:
    """The first arm minus each other one, paired by task."""
    judged = [t for bench in benches for t in bench.judged]
    target = np.array([t.target for t in judged])
    before = distance(np.array([t.original for t in judged]), target)
    draws = Resampling.of(len(judged), seed=0, n_boot=2000)

    def rows(arm: str) -> dict[str, np.ndarray]:
        texts = [text for bench in benches for text in bench.texts(arm)]
        far = distance(WorldDetector().score(texts), target)
        both = WorldFidelity().judge([t.source for t in judged], texts).mean(axis=1)
        return {
            "jsr": success(far, both).astype(float),
            "reached": reached(far, before, both).astype(float),
            "consistency": both,
        }

    own = rows(arms[0])
    others = {arm: rows(arm) for arm in arms[1:]}
    found: dict[str, Any] = {
        name: {
            arm: asdict(mean(own[name] - other[name], draws).at()) for arm, other in others.items()
        }
        for name in own
    }
    return {"first": arms[0], **found}
