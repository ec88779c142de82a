"""Spans of a rewrite that claim something its source does not say.

What a rewrite says between two words of its source either colours (`with all your heart`) or
claims (`with a steam room`). A logistic regression tells the two apart from the mean activation
after the frozen layers of the bundled encoder; it is fitted when it is first used, on the some 300
spans of `entail_claims.yaml`. The idea and the spans are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
import yaml
from sklearn.linear_model import LogisticRegression

from valign.detect.entail_model import EntailmentNet, load_tokenizer
from valign.detect.entail_polarity import content

_CLAUSE = re.compile(r"(?<=[.,!?;:])\s+|\s*[—–()]\s*")
_WORD = re.compile(r"[\w’']+(?:-\w+)*")


@dataclass(frozen=True)
class NewSpan:
    """A span with content that the source does not have.

    Attributes:
        text: the span, from its first word to its last content word.
        claim: probability that it claims something, by the claim reader.
    """

    text: str
    claim: float


class ClaimReader:
    """Tells claims from colour.

    Args:
        net: the encoder whose frozen layers read the spans; by default the packaged MiniLM.
    """

    def __init__(self, net: EntailmentNet | None = None):
        self._net = (net or EntailmentNet.from_minilm()).eval()
        self._tokenizer = load_tokenizer()
        file = resources.files("valign.detect") / "entail_claims.yaml"
        spans = yaml.safe_load(file.read_text(encoding="utf-8"))
        texts = [*spans["claim"], *spans["colour"]]
        truth = np.repeat([1, 0], [len(spans["claim"]), len(spans["colour"])])
        self._model = LogisticRegression(C=10, max_iter=2000).fit(self._read(texts), truth)

    def claims(self, source: str, text: str, *, allowed: Sequence[str] = ()) -> list[NewSpan]:
        """Spans of the text that are new to the source, the surest claims first."""
        found = new_spans(" ".join([source, *allowed]), text)
        if not found:
            return []
        claim = self._model.predict_proba(self._read(found))[:, 1]
        spans = [NewSpan(span, float(p)) for span, p in zip(found, claim, strict=True)]
        return sorted(spans, key=lambda span: -span.claim)

    def _read(self, spans: list[str]) -> np.ndarray:
        """Mean activation of each span after the frozen layers, unit length, (n, width)."""
        batch = self._tokenizer(
            spans, padding=True, truncation=True, max_length=40, return_tensors="pt"
        )
        mask = batch["attention_mask"]
        with torch.inference_mode():
            hidden = self._net.lower(batch["input_ids"], batch["token_type_ids"], mask)
        weight = mask[..., None].float()
        mean = (hidden * weight).sum(1) / weight.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy()


def new_spans(known: str, text: str) -> list[str]:
    """Maximal runs of words, within a clause, whose content words do not stand in `known`.

    Function words at a run's start belong to it (`by the boys`), those at its end do not.
    """
    stems = set(content(known))
    found: list[str] = []
    for clause in _CLAUSE.split(text):
        run: list[re.Match[str]] = []
        for word in [*_WORD.finditer(clause), None]:
            meant = set(content(word[0])) if word is not None else set()
            if word is not None and not (meant and meant <= stems):
                run.append(word)
                continue
            while run and not content(run[-1][0]):
                run.pop()
            if run:
                found.append(clause[run[0].start() : run[-1].end()])
            run = []
    return found


def longest_gap(source: str, text: str) -> list[str]:
    """The longest run of the source's content words of which the text has none, as stems."""
    said = set(content(text))
    longest: list[str] = []
    gap: list[str] = []
    for word in content(source):
        gap = [] if word in said else [*gap, word]
        longest = max(longest, gap, key=len)
    return longest
