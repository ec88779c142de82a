"""Texts to fit and measure on: the bundled ones, the user's own, the public sets."""

from valign.corpora.errors import CorpusError, MissingDataError
from valign.corpora.load import available_corpora, load_corpus, load_rewrites, load_shifts
from valign.corpora.split import split_corpus
from valign.corpora.types import (
    Answer,
    Corpus,
    Dilemma,
    FaultyRewrite,
    Message,
    Neutral,
    Pair,
    Rewrite,
    Shift,
)

__all__ = [
    "Answer",
    "Corpus",
    "CorpusError",
    "Dilemma",
    "FaultyRewrite",
    "Message",
    "MissingDataError",
    "Neutral",
    "Pair",
    "Rewrite",
    "Shift",
    "available_corpora",
    "load_corpus",
    "load_rewrites",
    "load_shifts",
    "split_corpus",
]
