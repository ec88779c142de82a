"""K-Steering: climb the gradient of one classifier of all values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field

from valign.control import EditsControl, Site
from valign.corpora.types import Corpus, Pair
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.layers import Layers, chosen_sites
from valign.methods.probes import split
from valign.methods.readings import (
    Positions,
    Readings,
    collect,
    need_pairs,
    paired_values,
    read,
    sides,
)
from valign.methods.scorers import Function, Scorer, ascent, fit_scorer
from valign.values import Profile


class KSteering(Method):
    """Non-linear steering of several values by one classifier (arXiv 2505.24535).

        g: activation -> one logit per value, a perceptron on all values' texts
        a_l <- a_l + alpha decay^i grad_a sum_v s_v g_v(a_l),    i = 0 .. steps - 1

    s_v is positive for values to move towards and negative for those to move away from (the
    paper's avoided classes); alpha is the strength that the dose sets. The direction depends on
    where the activation stands, and one move serves all values of the target at once.

    Helps where several values are asked for and their directions are not simply added. Hurts as
    all adversarial directions do: the classifier is satisfied before the text changes, so judge
    with one that had no part in it; costs two small matrix products per layer and token.

    Ours: one GELU layer where the authors' code has two of ReLU, so that the gradient has a closed
    form while decoding; scores as weights in place of means over two sets of classes; contrast
    texts, whose negative side is labelled with no value; centred inputs. Binary cross entropy per
    value and 128 hidden units are those of the authors' code.
    """

    name: ClassVar[str] = "k-steering"

    layers: Layers = "best"
    """Where the classifier reads and acts, one of its own per layer; see `caa`."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""
    hidden: int = Field(default=128, ge=1)
    """Hidden units of the classifier."""
    steps: int = Field(default=1, ge=1)
    """Gradient steps at every token."""
    decay: float = Field(default=1.0, gt=0, le=1)
    """Each step is this many times the one before."""
    epochs: int = Field(default=60, ge=1)
    """Passes over the texts when the classifier is fitted."""
    rate: float = Field(default=3e-3, gt=0)
    """Learning rate of the classifier."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of the classifier's weights."""
    seed: int = 0
    """Of the split, the classifier's first weights and the order of the texts."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found: list[Readings] = []
        if self.layers == "best":
            found = [read(lm, corpus, "resid", v, positions=self.positions) for v in target.named]
        values = paired_values(corpus)
        weights = torch.tensor([target.named.get(value, 0.0) for value in values])
        sites = chosen_sites(lm, self.layers, found, method=self.name)
        classifiers = self._classifiers(lm, corpus, values, sites)
        return EditsControl(
            target=target,
            edits=tuple(
                edit
                for site in sites
                for edit in ascent(
                    site, classifiers[site][0], weights, steps=self.steps, decay=self.decay
                )
            ),
            provenance=dict(
                sites=[str(site) for site in sites],
                values=values,
                accuracy={str(site): classifiers[site][1] for site in sites},
            ),
        )

    def _classifiers(
        self, lm: HostModel, corpus: Corpus, values: list[str], sites: list[Site]
    ) -> dict[Site, tuple[Scorer, float]]:
        """The classifier of each layer and its held-out accuracy, kept in `lm.memo`.

        Accuracy is that of scoring a value's positive text above its twin, mean over values.
        """
        shared = self.model_dump(exclude={"layers", "steps", "decay"}).items()
        keys = {site: ("k-steering", corpus.fingerprint, site, *shared) for site in sites}
        missing = [site for site in sites if keys[site] not in lm.memo]
        if missing:
            pairs = [corpus.pairs_of(value) for value in values]
            examples = [example for group in pairs for example in sides(group)]
            read_at = collect(lm, examples, missing, positions=self.positions)
            for site in missing:
                lm.memo[keys[site]] = self._classifier(read_at[site], pairs, values)
        return {site: lm.memo[keys[site]] for site in sites}

    def _classifier(
        self, x: torch.Tensor, pairs: Sequence[Sequence[Pair]], values: list[str]
    ) -> tuple[Scorer, float]:
        labels = torch.zeros(len(x), len(values))
        value_of, fitted = [], []
        begin = 0
        for number, group in enumerate(pairs):
            labels[begin : begin + len(group), number] = 1
            for row, pair in enumerate(group, start=begin):
                labels[row, [values.index(other) for other in pair.also if other in values]] = 1
            value_of += [number] * 2 * len(group)
            fitted.append(split(len(group), seed=self.seed).repeat(2))
            begin += 2 * len(group)
        train = torch.cat(fitted)
        x_in, y_in = x[train.to(x.device)], labels[train].to(x)

        def loss(g: Function, rows: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.binary_cross_entropy_with_logits(g(x_in[rows]), y_in[rows])

        scorer = fit_scorer(
            x_in, loss, outputs=len(values), hidden=self.hidden, epochs=self.epochs,
            rate=self.rate, decay=self.weight_decay, seed=self.seed,
        )  # fmt: skip
        own = scorer(x.cpu())[torch.arange(len(x)), torch.tensor(value_of)]
        right = []
        begin = 0
        for group, part in zip(pairs, fitted, strict=True):
            better, worse = own[begin : begin + 2 * len(group)].chunk(2)
            right.append((better > worse)[~part[: len(group)]].float().mean())
            begin += 2 * len(group)
        return scorer, round(float(torch.stack(right).mean()), 3)
