"""Which words made a detector say so: leave one out, and look how the score moves.

Occlusion asks any detector, needs no gradients, and answers in units of the score itself
(Zeiler and Fergus 2014, for words). It sees one word at a time: two words that say the same
thing share the credit badly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from valign.detect.errors import DetectorError
from valign.detect.types import Detector

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


@dataclass(frozen=True)
class WordEffect:
    """How a word moved the score of one value.

    Attributes:
        start, end: where the word stands in the text, as character offsets.
        effect: score of the text minus score of the text without the word; positive where the
            word raises the score.
    """

    word: str
    start: int
    end: int
    effect: float


def attribute(
    detector: Detector, text: str, value: str, *, prompt: str | None = None, span: int = 1
) -> list[WordEffect]:
    """Effect of every word of a text on the score of one value, in text order.

    One pass over n + 1 texts for n words; `occlude` reads all values in the same pass.

    Args:
        value: a value of the detector's system.
        prompt: what the text answers, for detectors that read it.
        span: words left out together, centred on the word; 3 shows phrases better than 1.

    Raises:
        UnknownValueError: the detector does not read that value.
        DetectorError: `span` is not a positive odd number.
    """
    if span < 1 or span % 2 == 0:
        raise DetectorError(f"span={span}: expected a positive odd number of words, such as 1.")
    column = detector.system.index(value)
    words = list(_WORD.finditer(text))
    around = span // 2
    windows = [
        (words[max(0, i - around)].start(), words[min(len(words) - 1, i + around)].end())
        for i in range(len(words))
    ]
    moved = _left_out(detector, text, windows, prompt)[:, column]
    return [
        WordEffect(word.group(), word.start(), word.end(), float(effect))
        for word, effect in zip(words, moved, strict=True)
    ]


def occlude(
    detector: Detector, text: str, *, prompt: str | None = None, size: int = 1
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Effect of every run of words on the scores of all values at once.

    One pass over n + 1 texts for n runs.

    Args:
        prompt: what the text answers, for detectors that read it.
        size: words a run; runs do not overlap.

    Returns:
        Where the runs stand, as character offsets (start, end), and their effects, shape
        (n_runs, n_values), as `WordEffect.effect`.

    Raises:
        DetectorError: `size` is below 1.
    """
    if size < 1:
        raise DetectorError(f"size={size}: expected a number of words, 1 or more.")
    words = list(_WORD.finditer(text))
    runs = [words[i : i + size] for i in range(0, len(words), size)]
    spans = [(run[0].start(), run[-1].end()) for run in runs]
    return spans, _left_out(detector, text, spans, prompt)


def _left_out(
    detector: Detector, text: str, windows: Sequence[tuple[int, int]], prompt: str | None
) -> np.ndarray:
    """Score of the text minus scores without each window, (n_windows, n_values)."""
    without = [f"{text[:start].rstrip()} {text[end:].lstrip()}".strip() for start, end in windows]
    texts = [text, *without]
    scores = detector.score(texts, None if prompt is None else [prompt] * len(texts))
    return scores[:1] - scores[1:]
