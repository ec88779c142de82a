"""A split that keeps the rows a control is fitted on from the rows it is judged on."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from valign.corpora.errors import CorpusError
from valign.corpora.types import Corpus

_FILL = 2**64


def split_corpus(corpus: Corpus, *, test: float = 0.3, salt: str = "") -> tuple[Corpus, Corpus]:
    """Train and test halves of a corpus, row by row.

    A row's side depends only on its id, so it stays where it is when rows are added or moved, on
    every machine. Rows of one scene stay together only if they share an id.

    Args:
        test: expected share of rows in the test half, between 0 and 1.
        salt: another text gives another split.

    Returns:
        (train, test), named `<name>/train` and `<name>/test`, rows in the corpus's order.

    Raises:
        CorpusError: `test` is not strictly between 0 and 1.
    """
    if not 0 < test < 1:
        raise CorpusError(f"test={test}: expected a share strictly between 0 and 1, such as 0.3.")

    def half(name: str, in_test: bool) -> Corpus:
        return replace(
            corpus,
            name=f"{corpus.name}/{name}",
            pairs=tuple(r for r in corpus.pairs if is_test(r.id) == in_test),
            dilemmas=tuple(r for r in corpus.dilemmas if is_test(r.id) == in_test),
            answers=tuple(r for r in corpus.answers if is_test(r.id) == in_test),
            neutral=tuple(r for r in corpus.neutral if is_test(r.id) == in_test),
        )

    def is_test(id: str) -> bool:
        return id_fraction(id, salt=salt) < test

    return half("train", False), half("test", True)


def id_fraction(id: str, *, salt: str = "") -> float:
    """A number in [0, 1) that depends on nothing but the texts given (SHA-256)."""
    digest = hashlib.sha256(f"{salt}\0{id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _FILL
