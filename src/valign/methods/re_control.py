"""RE-Control: climb a value function of the last hidden state while decoding."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from valign.control import EditsControl
from valign.corpora.types import Corpus
from valign.lm import HostModel, capture
from valign.methods.base import Method
from valign.methods.readings import need_pairs, sides
from valign.methods.scorers import Function, Scorer, ascent, fit_scorer
from valign.values import Profile


class REControl(Method):
    """Representation editing from a control perspective (arXiv 2406.05954).

        R      +1 for a value's positive texts, -1 for its negative ones
        V_v    a perceptron that foretells R from the state h_t at each token of a text
        return sum_t (V(h_t) - R)^2
        td     sum_{t<T} (V(h_t) - V(h_{t+1}))^2 + (V(h_T) - R)^2, no gradient into V(h_{t+1})
        h <- h + alpha grad_h sum_v s_v V_v(h),  `steps` times at every token

    h is the output of the last block. A state is thus moved towards where texts like it end well,
    and not towards where such texts stand on average (`caa`).

    Helps where what comes next decides, and where it may cost decoding time. Hurts since it edits
    the last state only: it steers logits, later tokens do not attend to it; several steps climb
    to where V was never fitted.

    `td` is the paper's. Since a text is judged only at its end, V's fixed point is the expected R
    either way, and `return` gets there in fewer passes; it is ours, as are pairs for texts in
    place of sampled answers with a reward model's scores, the sum over values, GELU for ReLU, the
    state before the final norm in place of the one after it, and the number of steps.
    """

    name: ClassVar[str] = "re-control"

    steps: int = Field(default=5, ge=1)
    """Gradient steps at every token."""
    learn: Literal["return", "td"] = "return"
    """What V is fitted to at a token: how its text is judged, or V at the next token."""
    hidden: int = Field(default=128, ge=1)
    """Hidden units of V."""
    epochs: int = Field(default=10, ge=1)
    """Passes over all tokens when V is fitted."""
    rate: float = Field(default=3e-3, gt=0)
    """Learning rate of V."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of V's weights."""
    seed: int = 0
    """Of V's first weights and the order of the tokens."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        site = lm.sites("resid")[-1]
        functions = [self._value_function(lm, corpus, value) for value in target.named]
        weights = torch.tensor(list(target.named.values()))
        edits = ascent(site, _side_by_side(functions), weights, steps=self.steps)
        return EditsControl(target=target, edits=edits, provenance=dict(sites=[str(site)]))

    def _value_function(self, lm: HostModel, corpus: Corpus, value: str) -> Scorer:
        """V of one value, kept in `lm.memo`."""
        key = ("re-control", corpus.fingerprint, value, self.learn, self.hidden, self.epochs,
               self.rate, self.weight_decay, self.seed)  # fmt: skip
        if key in lm.memo:
            return lm.memo[key]
        states, text = _tokens(lm, sides(corpus.pairs_of(value)))
        n = len(corpus.pairs_of(value))
        reward = torch.where(text < n, 1.0, -1.0)
        last = torch.ones_like(text, dtype=torch.bool)
        last[:-1] = text[1:] != text[:-1]

        def loss(v: Function, rows: torch.Tensor) -> torch.Tensor:
            goal = reward[rows]
            if self.learn == "td":
                with torch.no_grad():
                    coming = v(states[(rows + 1).clamp_max(len(states) - 1)])[:, 0]
                goal = torch.where(last[rows], goal, coming)
            return (v(states[rows])[:, 0] - goal).square().mean()

        lm.memo[key] = fit_scorer(
            states, loss, outputs=1, hidden=self.hidden, epochs=self.epochs, rate=self.rate,
            decay=self.weight_decay, seed=self.seed,
        )  # fmt: skip
        return lm.memo[key]


def _tokens(
    lm: HostModel, examples: list[tuple[str | None, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """States at all tokens of all texts (tokens, width) and the text of each; texts unbroken."""
    site = lm.sites("resid")[-1]
    states, text = [], []
    for numbers, batch in capture(lm, examples, [site], positions="tokens"):
        states.append(batch[site])
        text += numbers
    return torch.cat(states), torch.tensor(text)


def _side_by_side(scorers: list[Scorer]) -> Scorer:
    """One scorer with the outputs of several."""
    return Scorer(
        w1=torch.cat([s.w1 for s in scorers]),
        b1=torch.cat([s.b1 for s in scorers]),
        w2=torch.block_diag(*[s.w2 for s in scorers]),
        b2=torch.cat([s.b2 for s in scorers]),
        spread=(sum(s.spread**2 for s in scorers) / len(scorers)) ** 0.5,
    )
