"""The context gate: steer only where a prompt has to do with values.

A linear probe on the residual stream at the last prompt token tells prompts about the target's
values from everyday ones; the control acts only where it says yes. ConVA (arXiv 2507.11316) gates
with a separate classifier of the prompt's values; reading the model's own activations needs no
second model and is ours. With `against="other"` the prompts of other values count as everyday too.

Helps where most requests have nothing to do with values: those stay bit for bit as they were.
Hurts where the values should also colour answers to plain questions.
"""

from __future__ import annotations

from typing import Literal

import torch

from valign.control import Gate
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.errors import FitError
from valign.methods.probes import fit_probes, split
from valign.methods.readings import MIN_PAIRS, collect
from valign.values import Profile

Against = Literal["neutral", "other"]
MOST = 256
"""Prompts per class; more do not make the gate better (ours)."""


def fit_gate(
    lm: HostModel,
    corpus: Corpus,
    target: Profile,
    *,
    against: Against = "neutral",
    sites: int = 1,
    ridge: float = 10.0,
    seed: int = 0,
) -> tuple[Gate, dict[str, float]]:
    """A gate for the target's values, from the corpus's dilemmas and neutral questions.

    Args:
        against: what the gate stays shut for: `neutral` questions, or also `other` values' prompts.
        sites: read at so many layers, those with the best held-out accuracy; any may open it.

    Returns:
        The gate, and the held-out balanced accuracy at each of its sites.

    Raises:
        FitError: too few prompts on either side.
    """
    about, plain = gate_prompts(corpus, target, against=against)
    key = ("gate", corpus.fingerprint, tuple(sorted(target.named)), against, ridge, seed)
    if key not in lm.memo:
        examples = [(prompt, "") for prompt in about + plain]
        activations = collect(lm, examples, lm.sites("resid"), positions="prompt")
        labels = torch.arange(len(examples)) < len(about)
        train = torch.cat([split(len(about), seed=seed), split(len(plain), seed=seed)])
        lm.memo[key] = fit_probes(activations, labels, train, ridge=ridge, balanced=True)
    probes = lm.memo[key]
    best = sorted(probes, key=lambda site: (-probes[site].accuracy, site))[:sites]
    gate = Gate({s: (probes[s].weight, torch.tensor(probes[s].bias)) for s in best})
    return gate, {str(site): probes[site].accuracy for site in best}


def gate_where(
    wanted: bool, lm: HostModel, corpus: Corpus, target: Profile, *, seed: int
) -> tuple[Gate | None, dict[str, float]]:
    """`fit_gate` where a method's `gate` setting asks for one; else no gate and no accuracy."""
    return fit_gate(lm, corpus, target, seed=seed) if wanted else (None, {})


def gate_prompts(
    corpus: Corpus,
    target: Profile,
    *,
    against: Against,
    instead: str = "fit with gate=false",
) -> tuple[list[str], list[str]]:
    """Prompts a gate should open for, and prompts it should stay shut for.

    Args:
        instead: what the error names as the way without a gate.

    Raises:
        FitError: too few prompts on either side.
    """
    named = set(target.named)
    about = [d.text for d in corpus.dilemmas if d.value in named]
    about += [p.prompt for p in corpus.pairs if p.value in named and p.prompt is not None]
    about = list(dict.fromkeys(about))[:MOST]
    plain = [n.prompt for n in corpus.neutral][:MOST]
    if against == "other":
        others = [d.text for d in corpus.dilemmas if d.value not in named and d.text not in about]
        plain += others[:: max(1, len(others) // MOST)]
    for prompts, what in ((about, "dilemmas of " + ", ".join(named)), (plain, "neutral questions")):
        if len(prompts) < MIN_PAIRS:
            raise FitError(
                f"A gate needs {MIN_PAIRS} {what}, the corpus {corpus.name} has {len(prompts)}. "
                f"Add some to it, or {instead}."
            )
    return about, plain
