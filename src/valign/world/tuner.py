"""A detector of the world that may tune: n-grams of sentences, fitted on the training split.

The exact parser judges, so a reward needs another reader. This one is a ridge regression from the
words, pairs and triples of words of a sentence to its signed scores. It is good on the sentences
that methods may be fitted on, worse on the held-out ones, and can be fooled, as real ones can.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge

from valign.values import load_system

from .judge import WorldJudge, _split
from .rewrites import rewrites

TEXTS = 1500
"""Training texts."""
LEAST = 0.17
"""Sentence scores below half an intensity step count as none."""


class WorldTuner:
    """Signed value scores (n_texts, 10) by n-grams; deterministic.

    Args:
        seed: of the training texts; another seed is another detector.
    """

    def __init__(self, seed: int = 0):
        self.name = f"world-ngrams-{seed}"
        self.system = load_system("schwartz10")
        judge = WorldJudge()
        texts = [t.source for t in rewrites(TEXTS, seed=10_000 + seed)]
        sentences = sorted({s for text in texts for s in _split(text)})
        truth = np.array([judge.read({}, s).scores for s in sentences])
        self._words = CountVectorizer(ngram_range=(1, 3), token_pattern=r"[\w']+", binary=True)
        self._model = Ridge(alpha=1.0).fit(self._words.fit_transform(sentences), truth)

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """A text's score of a value is the mean of its sentences that speak of it."""
        split = [_split(text) for text in texts]
        flat = [sentence for own in split for sentence in own]
        found = np.zeros((len(texts), len(self.system)))
        if not flat:
            return found
        read = np.clip(self._model.predict(self._words.transform(flat)), -1, 1)
        read[np.abs(read) < LEAST] = 0.0
        begin = 0
        for row, own in enumerate(split):
            part = read[begin : begin + len(own)]
            begin += len(own)
            spoken = (part != 0).sum(axis=0)
            found[row] = np.divide(
                part.sum(axis=0), spoken, out=np.zeros(part.shape[1]), where=spoken > 0
            )
        return found
