"""The baseline to beat: counting the words of each value.

It reads no context, so it cannot tell a value that is promoted from one that is denied; every
other detector is reported beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from valign.detect.errors import DetectorError
from valign.values import ValueSystem, load_system

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SHORT_TEXT = 20
"""Words below which a text counts as this long: one hit in three words is no thirty in ninety."""
_EMPTY_WORDS = frozenset(
    "a an and as by for from in into is it its no not of on one or others that the their them "
    "through to what with without would".split()
)


class WordListDetector:
    """Scores a text by how many of its words stand on each value's list.

    With h hits in n words, r = 20 h / max(n, 20), score = r / (1 + r), in [0, 1) (ours; the
    Personal Values Dictionary of Ponizovskiy et al. 2020 takes the plain frequency).
    Word lists have no sign: a score is never negative.
    """

    def __init__(
        self, lists: Mapping[str, Sequence[str]], system: ValueSystem, *, name: str = "wordlist"
    ):
        """Take one list of words per value; a trailing `*` stands for any ending.

        Raises:
            DetectorError: a value without words, or a name that the system does not hold.
        """
        missing = [value for value in system.names if not lists.get(value)]
        surplus = [value for value in lists if value not in system.names]
        if missing or surplus:
            raise DetectorError(
                f"Word lists must name every value of {system.name} once. "
                f"Without words: {', '.join(missing) or 'none'}; "
                f"not in the system: {', '.join(surplus) or 'none'}."
            )
        self.name = name
        self.system = system
        self._lists = [_matcher(lists[value]) for value in system.names]

    @classmethod
    def from_system(cls, system: ValueSystem | str = "schwartz10") -> WordListDetector:
        """Lists from the system's own names, definitions and keywords; needs no data."""
        values = load_system(system) if isinstance(system, str) else system
        lists = {
            value.name: [
                _open_ended(word)
                for phrase in (value.name.replace("-", " "), value.definition, *value.keywords)
                for word in _WORD.findall(phrase.lower())
                if word not in _EMPTY_WORDS
            ]
            for value in values
        }
        return cls(lists, values)

    @classmethod
    def from_dictionary(
        cls, path: str | Path, system: ValueSystem | str = "schwartz10"
    ) -> WordListDetector:
        """Lists from a JSON file `{value: [word, ...]}`, such as the Personal Values Dictionary.

        Names are compared without case, spaces or hyphens (`Self-Direction` is `self-direction`).

        Raises:
            DetectorError: no such file, another shape, or names that do not fit the system.
        """
        values = load_system(system) if isinstance(system, str) else system
        try:
            found = json.loads(Path(path).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DetectorError(f"{path} is not a JSON word list: {error}") from None
        if not isinstance(found, dict) or not all(
            isinstance(words, list) and all(isinstance(w, str) for w in words)
            for words in found.values()
        ):
            raise DetectorError(f'{path}: expected {{"value": ["word", ...], ...}}.')
        names = {_bare(name): name for name in values.names}
        lists = {names.get(_bare(str(key)), str(key)): words for key, words in found.items()}
        return cls(lists, values, name=f"wordlist-{Path(path).stem}")

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        """Scores in [0, 1), shape (n_texts, n_values); prompts are not read."""
        scores = np.zeros((len(texts), len(self.system)))
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower().replace("’", "'"))
            for column, (whole, stems) in enumerate(self._lists):
                hits = sum(word in whole or (bool(stems) and word.startswith(stems))
                           for word in words)  # fmt: skip
                rate = _SHORT_TEXT * hits / max(len(words), _SHORT_TEXT)
                scores[row, column] = rate / (1 + rate)
        return scores


def _matcher(words: Sequence[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    lower = [word.strip().lower() for word in words]
    whole = frozenset(word for word in lower if not word.endswith("*"))
    return whole, tuple(sorted({w[:-1] for w in lower if w.endswith("*") and len(w) > 1}))


def _open_ended(word: str) -> str:
    """`safety` -> `safety*`, `creativity` -> `creativi*`; short words only as they are."""
    if len(word) < 4:
        return word
    return (word[:-2] if len(word) >= 8 else word.removesuffix("s")) + "*"


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
