"""CAST: add the mean difference only where a condition vector says the prompt is about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from valign.control import EditsControl, Gate, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.caa import CAA
from valign.methods.gate import Against, gate_prompts
from valign.methods.layers import Layers
from valign.methods.probes import split
from valign.methods.readings import Positions, collect
from valign.values import Profile


class CAST(Method):
    """Conditional activation steering (arXiv 2409.05907): CAA behind a condition vector.

        a_l <- a_l + 1[c . a_k(x) > t] sum_v s_v (mean positive - mean negative)_l

    c is a unit vector at one layer k: the first principal component of the prompts about the
    target's values and of everyday ones, centred on the midpoint of the two means. Layer and
    threshold t are those with the best F1 on the prompts to fit on.

    Helps where most requests have nothing to do with values: those stay bit for bit as they were.
    Hurts where the two kinds of prompts differ along more than one direction (the probe of
    `conva`'s gate weighs all of them), and where values should also colour plain answers.

    The paper thresholds the cosine between an activation and its projection on c, reads the mean
    over the prompt's tokens, looks for k below the steered layers, and steers along a principal
    component. The linear reading of the last prompt token of the unsteered model (how gates are
    read here, at any layer), and the mean difference as what is added, are ours.
    """

    name: ClassVar[str] = "cast"

    layers: Layers = "inner"
    """Where the shift is added; see `caa`."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""
    condition: Literal["pca", "mean"] = "pca"
    """Condition vector: first principal component, or the mean difference (ours)."""
    against: Against = "neutral"
    """What it stays shut for: `neutral` questions, or also `other` values' prompts."""
    seed: int = 0
    """Of the split into prompts to fit on and held-out prompts."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        added = CAA(layers=self.layers, positions=self.positions)._fit(lm, corpus, target)
        about, plain = gate_prompts(corpus, target, against=self.against, instead="take caa")
        key = ("cast", corpus.fingerprint, tuple(about), tuple(plain), self.condition, self.seed)
        if key not in lm.memo:
            lm.memo[key] = self._conditions(lm, about, plain)
        conditions: dict[Site, tuple[Condition, float]] = lm.memo[key]
        site = max(conditions, key=lambda s: (conditions[s][0].f1, conditions[s][0].apart))
        best, held_out = conditions[site]
        return replace(
            added,
            gate=Gate({site: (best.vector, torch.tensor(-best.threshold))}),
            provenance=dict(
                added.provenance,
                condition=str(site),
                condition_f1=round(best.f1, 3),
                condition_f1_held_out=round(held_out, 3),
            ),
        )

    def _conditions(
        self, lm: HostModel, about: list[str], plain: list[str]
    ) -> dict[Site, tuple[Condition, float]]:
        """Each layer's condition, and its F1 on the held-out prompts."""
        examples = [(prompt, "") for prompt in about + plain]
        labels = torch.arange(len(examples)) < len(about)
        train = torch.cat([split(len(part), seed=self.seed) for part in (about, plain)])
        found = {}
        for site, a in collect(lm, examples, lm.sites("resid"), positions="prompt").items():
            a = a.cpu()
            condition = fit_condition(a[train], labels[train], self.condition)
            opened = a[~train] @ condition.vector > condition.threshold
            found[site] = condition, f1(opened, labels[~train])
        return found


@dataclass(frozen=True, eq=False)
class Condition:
    """Opens where vector . a > threshold.

    Attributes:
        vector: unit norm, (width,).
        f1: on the prompts it was fitted on.
        apart: distance of the classes' means along it, in standard deviations.
    """

    vector: torch.Tensor
    threshold: float
    f1: float
    apart: float


def fit_condition(
    a: torch.Tensor, labels: torch.Tensor, kind: Literal["pca", "mean"] = "pca"
) -> Condition:
    """The condition vector of one layer with the threshold of best F1.

    Args:
        a: activations (n, width).
        labels: (n,) bool, True where it should open.
    """
    on, off = a[labels].mean(0), a[~labels].mean(0)
    if kind == "pca":
        centred = a - (on + off) / 2
        vector = torch.linalg.svd(centred, full_matrices=False).Vh[0]
        vector = vector if vector @ (on - off) >= 0 else -vector
    else:
        vector = torch.nn.functional.normalize(on - off, dim=0)
    scores = a @ vector
    ranked = scores.sort().values
    cuts = torch.cat([ranked[:1] - 1, (ranked[1:] + ranked[:-1]) / 2])
    room = torch.cat([torch.zeros(1), ranked[1:] - ranked[:-1]])
    found = [
        (f1(scores > cut, labels), float(gap), float(cut))
        for cut, gap in zip(cuts, room, strict=True)
    ]
    best, _, threshold = max(found)
    apart = float((on - off) @ vector / scores.std().clamp_min(1e-12))
    return Condition(vector=vector, threshold=threshold, f1=best, apart=apart)


def f1(opened: torch.Tensor, labels: torch.Tensor) -> float:
    """2 TP / (2 TP + FP + FN); 0 where there is nothing to find."""
    right = int((opened & labels).sum())
    return 2 * right / max(1, int(opened.sum()) + int(labels.sum()))
