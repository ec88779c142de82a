"""Unigram logit bias: the control that only knows words."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import torch
from pydantic import Field

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.readings import need_pairs
from valign.values import Profile


class LogitBias(Method):
    """Raise the tokens of the positive texts, lower those of the negative ones.

        bias(t) = sum_v s_v log[ (n+(t) + c) / (N+ + c T) ] - log[ (n-(t) + c) / (N- + c T) ]

    n+ and n- count token t in the two sides of v's pairs, N are the totals, T the number of
    tokens seen on either side, c the smoothing; tokens never seen get 0. Ours.

    It changes no hidden state and knows nothing about the prompt. Where it does as well as a
    hidden edit, the measure rewards words: read it beside every other row. It helps where words
    are the point, and hurts as soon as the same words can serve or betray a value.
    """

    name: ClassVar[str] = "logit-bias"

    smoothing: float = Field(default=1.0, gt=0)
    """Added to every count."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        site = Site("logits")
        vector = torch.zeros(lm.site_width(site))
        for value, score in target.named.items():
            pairs = corpus.pairs_of(value)
            positive = self._count(lm, [pair.positive for pair in pairs])
            negative = self._count(lm, [pair.negative for pair in pairs])
            seen = sorted(positive | negative)
            up = self._log_share(positive, seen)
            down = self._log_share(negative, seen)
            vector[seen] += score * (up - down)
        return EditsControl(
            target=target, edits=(Edit(site=site, kind="add", tensors=dict(vector=vector)),)
        )

    def _count(self, lm: HostModel, texts: list[str]) -> Counter[int]:
        return Counter(
            token
            for text in texts
            for token in lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        )

    def _log_share(self, counts: Counter[int], seen: list[int]) -> torch.Tensor:
        smoothed = torch.tensor([counts[token] + self.smoothing for token in seen])
        return (smoothed / smoothed.sum()).log()
