"""Choosing l*, d_v and K by validation: what the paper leaves to the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.svgt.data import need_scores
from valign.values import Profile

if TYPE_CHECKING:
    from valign.methods.svgt.method import SVGT

DEPTHS = (0.4, 0.55, 0.7)
"""Of l*, as shares of the depth."""
SIZES = (64, 128)
TOKENS = (3, 5, 8)


def search(
    method: SVGT, lm: HostModel, corpus: Corpus, target: Profile
) -> tuple[SVGT, list[dict[str, Any]]]:
    """The method with the best l* and d_v, then the best K, and what was tried.

    l* and d_v are chosen by the validation accuracy of the conditional scores of the target's
    values (ties go to the deeper block, which is cheaper to guide, and to the smaller d_v); K by
    the bridge's validation loss after as many epochs as asked for.
    """
    scores = need_scores(corpus, target)
    named = [scores.index(value) for value in target.named]
    deepest = method.model_copy(update={"layer": "auto"}).block(lm)
    layers = sorted({min(max(round(s * lm.n_layers) - 1, 0), deepest) for s in DEPTHS} | {deepest})
    tried: list[dict[str, Any]] = []
    best: tuple[tuple[float, int, int], SVGT] | None = None
    for layer in layers:
        for size in sorted({s for s in SIZES if s % method.heads == 0} or {method.size}):
            candidate = method.model_copy(update={"layer": layer, "size": size, "search": False})
            _, figures = candidate.value_module(lm, corpus, scores, layer)
            accuracy = sum(figures["conditional"][i] for i in named) / len(named)
            tried.append(dict(layer=layer, size=size, accuracy=round(accuracy, 3)))
            order = (accuracy, layer, -size)
            if best is None or order > best[0]:
                best = order, candidate
    assert best is not None
    chosen = best[1]
    losses = []
    layer = chosen.block(lm)
    value, _ = chosen.value_module(lm, corpus, scores, layer)
    for tokens in TOKENS if method.mode == "bridge" else (method.tokens,):
        candidate = chosen.model_copy(update={"tokens": tokens})
        _, errors = candidate.bridge(lm, corpus, target, value, scores, layer)
        losses.append((min(errors), tokens))
        tried.append(dict(tokens=tokens, loss=round(min(errors), 4)))
    return chosen.model_copy(update={"tokens": min(losses)[1]}), tried
