"""PPLM: gradient steps on hidden states, up the log-likelihood of a value classifier."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy.special import erf, expit

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.layers import Layers, chosen_sites
from valign.methods.readings import Positions, Readings, need_pairs, read
from valign.values import Profile


class PPLM(Method):
    """Plug and play language models (Dathathri et al., arXiv 1912.02164), on hidden states.

        log p(v | a) = log sigmoid(u_v),   u_v = w_v . a + b_v a logistic probe of value v
        a <- a + alpha / n * grad_a sum_v |s_v| log sigmoid(sgn(s_v) u_v)    n steps, every token
        grad_a log sigmoid(u) = (1 - sigmoid(u)) w

    A step is long where the classifier is far from convinced and vanishes where it is convinced:
    between CAA, which always moves, and ConVA, which stops at one probability.

    Helps where a value should be brought about and not exaggerated. Hurts as all ascent on a
    classifier does: it is satisfied before the text is.

    What differs from the paper. It perturbs the cached keys and values of the tokens before, by a
    backward pass through the model for every new token, normalises the gradient, and stays
    fluent by a KL term and a geometric mean with the plain model. Here a probe reads the residual
    stream of the layer that is moved, so that the gradient has a closed form; later tokens meet
    the moved states through the cache; and the tie to the plain model is the dose: its strength is
    set in nats of KL, as for every method, and not penalised token by token. Bags of words are
    left out (`logit-bias` is the nearest). The number of steps is the paper's.
    """

    name: ClassVar[str] = "pplm"

    layers: Layers = "inner"
    """See `caa` (ours, untuned; the paper moves the cache of all layers)."""
    steps: int = Field(default=3, ge=1)
    """Gradient steps at every token."""
    positions: Positions = "mean"
    """What the classifier is fitted on: the mean over the answer's tokens, as in the paper, or the
    last one."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found = {v: read(lm, corpus, "resid", v, positions=self.positions) for v in target.named}
        sites = chosen_sites(lm, self.layers, list(found.values()), method=self.name)
        edits = tuple(
            edit for site in sites for edit in (self._step(site, found, target),) * self.steps
        )
        accuracy = {
            v: {str(s): round(float(r[s].probe.accuracy), 3) for s in sites}
            for v, r in found.items()
        }
        return EditsControl(
            target=target,
            edits=edits,
            provenance=dict(sites=[str(site) for site in sites], accuracy=accuracy),
        )

    def _step(self, site: Site, found: dict[str, Readings], target: Profile) -> Edit:
        shift, weight = map(torch.tensor, log_sigmoid_units())
        w1, b1, w2 = [], [], []
        reach = 0.0
        for value, score in target.named.items():
            sign = 1.0 if score > 0 else -1.0
            reading = found[value][site]
            probe = reading.probe
            reach = max(reach, float(reading.gap.norm() / probe.weight.norm().clamp_min(1e-12)))
            # log sigmoid(u) rises with slope sigmoid(-u), so the units read -u
            w1.append(-sign * probe.weight.expand(len(shift), -1))
            b1.append(-sign * float(probe.bias) - shift)
            w2.append(-abs(score) * weight)
        tensors = dict(w1=torch.cat(w1), b1=torch.cat(b1), w2=torch.cat(w2))
        tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
        # strength 1: the steps together go at most as far as the two sides lie apart
        return Edit(site=site, kind="gradient", tensors=tensors, strength=reach / self.steps)


@cache
def log_sigmoid_units() -> tuple[np.ndarray, np.ndarray]:
    """Softplus as a sum of GELU units, so that engines need no scorer of its own for it.

        log(1 + e^x) ~ sum_k c_k gelu(x - t_k) + constant,   sum_k c_k = 1

    Fitted on the slopes by least squares; slopes are within 0.003 everywhere (ours).

    Returns:
        (t, c), both (n_units,).
    """
    knots = np.arange(-6.0, 6.1, 1.5)
    x = np.linspace(-14, 14, 1121)
    z = x[:, None] - knots
    slopes = 0.5 * (1 + erf(z / 2**0.5)) + z * np.exp(-z * z / 2) / (2 * np.pi) ** 0.5
    total = np.full((1, len(knots)), 1e3)
    weights = np.linalg.lstsq(
        np.vstack([slopes, total, 1e-3 * np.eye(len(knots))]),
        np.concatenate([expit(x), [1e3], np.zeros(len(knots))]),
        rcond=None,
    )[0]
    return knots, weights
