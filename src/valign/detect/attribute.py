"""Which words made a detector say so: leave one out, and look how the score moves.

Occlusion asks any detector, needs no gradients, and answers in units of the score itself
(Zeiler and Fergus 2014, for words). It sees one word at a time: two words that say the same
thing share the credit badly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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

    One pass over n + 1 texts for n words.

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
    without = []
    for i in range(len(words)):
        first, last = words[max(0, i - around)], words[min(len(words) - 1, i + around)]
        without.append(f"{text[: first.start()].rstrip()} {text[last.end() :].lstrip()}".strip())
    texts = [text, *without]
    scores = detector.score(texts, None if prompt is None else [prompt] * len(texts))[:, column]
    return [
        WordEffect(word.group(), word.start(), word.end(), float(scores[0] - score))
        for word, score in zip(words, scores[1:], strict=True)
    ]
