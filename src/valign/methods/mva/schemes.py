"""One adapter for several values: the competitors that train a model for every trade-off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle, islice

import torch

from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.errors import MethodSettingError
from valign.methods.mva.combine import lone
from valign.methods.mva.family import AdapterMethod
from valign.methods.mva.samples import logps
from valign.methods.mva.training import Trained, train_adapter

LEAST = 0.1
"""Smallest weight of MODPO's trained objective: gradients grow by one over it."""


def sequential(
    method: AdapterMethod, lm: HostModel, corpus: Corpus, weights: Mapping[str, float]
) -> Trained:
    """One value after the other; each training starts from and refers to the one before.

    `steps` (or `epochs`) are those of each value.
    """
    _positive("sequential", weights)
    made: Trained | None = None
    for value in weights:
        samples = method.samples(lm, corpus, value)
        reference = (
            method.reference(lm, corpus, value)
            if made is None
            else logps(lm, samples, lone(corpus.system, made))
        )
        label = value if made is None else f"{made.label}+{value}"
        made = train_adapter(
            lm, samples, reference, method.recipe(), label=label, start=made,
            folder=method.checkpoint,
        )  # fmt: skip
    assert made is not None
    return made


def mixed(
    method: AdapterMethod, lm: HostModel, corpus: Corpus, weights: Mapping[str, float]
) -> Trained:
    """Loss-weighted DPO: pairs of each value in proportion to its weight.

    The expected loss is sum_i w_i L_i; drawing pairs instead of scaling losses is ours. An epoch
    is as long as all values' pairs together.
    """
    _positive("mixed", weights)
    total = sum(len(method.samples(lm, corpus, value)) for value in weights)
    whole = sum(weights.values())
    samples, columns = [], []
    for value, weight in weights.items():
        n = round(total * weight / whole)
        rows = method.samples(lm, corpus, value)
        numbers = list(islice(cycle(range(len(rows))), n))
        samples += [rows[i] for i in numbers]
        columns.append(method.reference(lm, corpus, value)[numbers])
    label = "+".join(f"{value}={weight:g}" for value, weight in weights.items())
    return train_adapter(
        lm, samples, torch.cat(columns), method.recipe(), label=label, folder=method.checkpoint
    )


def modpo(
    method: AdapterMethod, lm: HostModel, corpus: Corpus, weights: Mapping[str, float]
) -> Trained:
    """MODPO (arXiv 2310.03708): the first value's preferences, the others' implicit rewards.

        h(y) = 1/w_0 [ beta log pi/pi_0 - sum_k w_k r_k ],   r_k = beta log pi_k/pi_0

    which is DPO with beta / w_0 and the reference log pi_0 + sum_k w_k log pi_k/pi_0.
    """
    _positive("modpo", weights)
    whole = sum(weights.values())
    first, *others = weights
    samples = method.samples(lm, corpus, first)
    plain = method.reference(lm, corpus, first)
    reference = plain.clone()
    recipe = method.recipe()
    for value in others:
        margin = train_adapter(
            lm, method.samples(lm, corpus, value), method.reference(lm, corpus, value), recipe,
            label=value, folder=method.checkpoint,
        )  # fmt: skip
        said = logps(lm, samples, lone(corpus.system, margin))
        reference += weights[value] / whole * (said - plain)
    own = max(weights[first] / whole, LEAST)
    label = "modpo+" + "+".join(f"{value}={weight:g}" for value, weight in weights.items())
    return train_adapter(
        lm, samples, reference, replace(recipe, beta=recipe.beta / own), label=label,
        folder=method.checkpoint,
    )  # fmt: skip


def _positive(scheme: str, weights: Mapping[str, float]) -> None:
    low = [value for value, weight in weights.items() if weight <= 0]
    if low:
        raise MethodSettingError(
            f"scheme={scheme} trains towards values only; {', '.join(low)} has no positive number. "
            "Use scheme=separate, whose weights may be negative."
        )
