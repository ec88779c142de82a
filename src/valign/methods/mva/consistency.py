"""VC-Soup's filter: pairs that buy one value with another teach none of the adapters.

For a preference pair with rewards r_k of the K values (arXiv 2603.18113, read in the abstract):

    gap_k = r_k(chosen) - r_k(rejected)
    c     = cos(gap, (1, ..., 1)) = sum_k gap_k / (sqrt(K) |gap|)

A pair stays where c reaches a threshold; each adapter then trains on what is left of its own. The
paper's rewards are reward models; taking a detector's scores for them is ours, as is the threshold.
With one value c is the sign of the gap: pairs stay whose chosen answer the detector prefers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from valign.corpora.preferences import consistency
from valign.corpora.types import Corpus
from valign.detect import Detector, check_detector
from valign.methods.errors import FitError


def consistent_part(
    corpus: Corpus, values: Sequence[str], least: float, detector: Detector
) -> tuple[Corpus, dict[str, tuple[int, int]]]:
    """The corpus with only those pairs of `values` whose consistency over them is at least `least`.

    Args:
        values: the K values, each of which gets an adapter.
        detector: whose scores are the rewards; reads the corpus' values.

    Returns:
        The corpus, and value -> (pairs kept, pairs there were). Pairs of other values stay.

    Raises:
        DetectorError: the detector reads other values than the corpus'.
        FitError: a value keeps no pair.
    """
    check_detector(detector, corpus.system)
    pairs = [pair for pair in corpus.pairs if pair.value in values]
    prompts = [pair.prompt for pair in pairs]
    columns = [corpus.system.index(value) for value in values]
    chosen, rejected = (
        detector.score([getattr(pair, side) for pair in pairs], prompts)[:, columns]
        for side in ("positive", "negative")
    )
    found = consistency(chosen, rejected)
    kept = {pair.id for pair, c in zip(pairs, found, strict=True) if c >= least}
    counts = {}
    for value in values:
        own = corpus.pairs_of(value)
        counts[value] = (sum(pair.id in kept for pair in own), len(own))
        if own and not counts[value][0]:
            raise FitError(
                f"consistency={least:g} leaves none of {len(own)} pairs for {value}, as "
                f"{detector.name} reads them. Lower it (-1 keeps all) or name fewer values."
            )
    left = tuple(p for p in corpus.pairs if p.value not in values or p.id in kept)
    return replace(corpus, pairs=left), counts
