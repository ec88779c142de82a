"""Training a small TopK autoencoder on a host model's own activations.

    z = (a - mean) / spread,   loss = |z - z'|^2 / |z|^2 + |e - e'|^2 / (32 |e|^2)

k features are on at a token; e = z - z' is what they leave over, e' its reconstruction from the
features that have been silent for long, so that these find something to do (AuxK; Gao et al.,
arXiv 2406.04093, whose are also the tied first weights and the unit rows of W_dec). Sizes, rate
and patience are ours, untuned: meant for models and corpora of a size that a CPU manages. For
large models train with SAELens; its folders are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from valign.control import Site
from valign.lm import HostModel, capture
from valign.lm.capture import Example
from valign.methods.errors import FitError
from valign.methods.progress import report
from valign.methods.sae.model import SparseAutoencoder, fidelity

_STATE = "training.safetensors"
_PART = 320
"""Texts that are read before the limit is looked at."""
_NAMES = ("w_enc", "b_enc", "w_dec", "b_dec")


@dataclass(frozen=True)
class Recipe:
    """How an autoencoder is trained; defaults are ours, untuned.

    Attributes:
        expansion: features per coordinate of the site.
        k: features that are on at a token.
        epochs: passes over all tokens.
        rate: Adam's.
        batch_size: tokens.
        patience: a feature is silent after so many tokens without being on, as a share of an epoch.
        seed: of the first weights and the order of the tokens.
    """

    expansion: int = 4
    k: int = 16
    epochs: int = 10
    rate: float = 1e-3
    batch_size: int = 512
    patience: float = 0.5
    seed: int = 0


def train_sae(
    lm: HostModel,
    examples: Sequence[Example],
    layer: int,
    folder: str | Path,
    *,
    recipe: Recipe | None = None,
    max_tokens: int = 500_000,
    save_every: int = 200,
) -> SparseAutoencoder:
    """Train one on the residual stream after a block, and write it to a folder.

    Interrupted, it goes on from its last state the next time it is called alike, and ends with
    the weights of an undisturbed run. A tenth of the texts is held out; R2, L0 and the share of
    silent features on it stand in the folder's `cfg.json` and in `notes["fidelity"]`.

    Args:
        examples: (prompt or None, text); activations are those of the text's tokens.
        layer: of the residual stream.
        max_tokens: activations kept in memory, width x 4 bytes each; later texts are left out.
        save_every: steps between saved states.

    Raises:
        FitError: too few texts, or a folder with another training in it.
        UnsupportedSiteError: no such layer.
    """
    recipe = recipe or Recipe()
    folder = Path(folder)
    site = lm.sites("resid")[layer]
    train, test = token_states(lm, examples, site, max_tokens=max_tokens)
    digest = hashlib.sha256(
        json.dumps([asdict(recipe), layer, lm.fingerprint, max_tokens, list(examples)]).encode()
    ).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    kept = _Kept(folder / _STATE, digest, save_every)
    sae = fit_sae(train, site, recipe=recipe, kept=kept)
    found = fidelity(sae, test.split(4096))
    sae.notes.update(model_name=lm.name, recipe=asdict(recipe), fidelity=asdict(found))
    sae.save(folder)
    return sae


def token_states(
    lm: HostModel, examples: Sequence[Example], site: Site, *, max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations at all tokens of texts in a mixed order, every tenth text apart: (train, test).

    Raises:
        FitError: fewer than ten texts.
    """
    if len(examples) < 10:
        raise FitError("Ten texts are needed to train an autoencoder; better thousands.")
    # `capture` sorts by length, so it gets mixed parts: a limit then cuts no kind of text off.
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0)).tolist()
    train, test, n = [], [], 0
    for begin in range(0, len(order), _PART):
        part = [examples[i] for i in order[begin : begin + _PART]]
        for numbers, batch in capture(lm, part, [site], positions="tokens"):
            held = torch.tensor(numbers) % 10 == 9
            train.append(batch[site][~held])
            test.append(batch[site][held])
            n += len(numbers)
        if n >= max_tokens:
            break
    return torch.cat(train)[:max_tokens], torch.cat(test)


def fit_sae(
    states: torch.Tensor, site: Site, *, recipe: Recipe, kept: _Kept | None = None
) -> SparseAutoencoder:
    """Train on activations (tokens, width); the same seed gives the same weights.

    Raises:
        FitError: k larger than the number of features.
    """
    width = states.shape[1]
    n = recipe.expansion * width
    if recipe.k > n:
        raise FitError(f"k={recipe.k}: {recipe.expansion} x {width} coordinates make {n} features.")
    mean = states.mean(0)
    spread = float((states - mean).square().mean().sqrt().clamp_min(1e-6))
    weights, adam, silent_for = _begin(width, n, recipe)
    per_epoch = -(-len(states) // recipe.batch_size)
    done = kept.read(weights, adam, silent_for) if kept else 0
    patience = max(1, round(recipe.patience * len(states)))
    for step, rows in enumerate(_batches(len(states), recipe), start=1):
        if step <= done:
            continue
        z = (states[rows] - mean) / spread
        _step(z, weights, adam, silent_for, recipe, patience)
        report("training an autoencoder", step, per_epoch * recipe.epochs)
        if kept and (step % kept.every == 0 or step == per_epoch * recipe.epochs):
            kept.write(step, weights, adam, silent_for)
    w_enc, b_enc, w_dec, b_dec = (weights[name].detach() for name in _NAMES)
    # Activations in the site's own unit: W_dec keeps its unit rows.
    return SparseAutoencoder(
        w_enc=w_enc,
        b_enc=b_enc * spread,
        w_dec=w_dec,
        b_dec=mean + b_dec * spread,
        site=site,
        activation="topk",
        k=recipe.k,
    )


def _begin(width: int, n: int, recipe: Recipe):
    rng = torch.Generator().manual_seed(recipe.seed)
    w_dec = torch.nn.functional.normalize(torch.randn(n, width, generator=rng), dim=1)
    weights = dict(w_enc=w_dec.T.clone(), b_enc=torch.zeros(n), w_dec=w_dec,
                   b_dec=torch.zeros(width))  # fmt: skip
    for tensor in weights.values():
        tensor.requires_grad_()
    adam = torch.optim.Adam(list(weights.values()), lr=recipe.rate)
    return weights, adam, torch.zeros(n)


def _batches(rows: int, recipe: Recipe) -> Iterator[torch.Tensor]:
    for epoch in range(recipe.epochs):
        rng = torch.Generator().manual_seed(1 + 100_003 * recipe.seed + epoch)
        yield from torch.randperm(rows, generator=rng).split(recipe.batch_size)


def _step(z, weights, adam, silent_for, recipe: Recipe, patience: int) -> None:
    with torch.enable_grad():
        pre = (z - weights["b_dec"]) @ weights["w_enc"] + weights["b_enc"]
        best = pre.topk(recipe.k, dim=1)
        f = torch.zeros_like(pre).scatter(1, best.indices, best.values.relu())
        left = z - (f @ weights["w_dec"] + weights["b_dec"])
        loss = left.square().sum() / z.square().sum().clamp_min(1e-12)
        silent_for += len(z)
        silent_for[(f.detach() > 0).any(0)] = 0
        silent = (silent_for >= patience).nonzero()[:, 0]
        if len(silent):
            own = pre[:, silent].topk(min(len(silent), max(1, z.shape[1] // 2)), dim=1)
            rows = weights["w_dec"][silent]
            again = torch.zeros_like(pre[:, silent]).scatter(1, own.indices, own.values.relu())
            rest = left.detach()
            missed = (rest - again @ rows).square().sum() / rest.square().sum().clamp_min(1e-12)
            loss = loss + missed / 32
        adam.zero_grad()
        loss.backward()
    with torch.no_grad():
        rows, slope = weights["w_dec"], weights["w_dec"].grad
        slope -= (slope * rows).sum(1, keepdim=True) * rows  # only turns: lengths stay one
        adam.step()
        rows /= rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


class _Kept:
    """The state of a training on disk, so that it can go on after it was killed."""

    def __init__(self, path: Path, digest: str, every: int):
        self.path, self.digest, self.every = path, digest, every

    def read(self, weights, adam, silent_for) -> int:
        """Put the saved state into place; the number of steps it has behind it."""
        if not self.path.is_file():
            return 0
        try:
            with safe_open(self.path, "pt") as file:
                head = file.metadata() or {}
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise FitError(f"{self.path} is damaged ({error}); delete it to begin anew.") from None
        if head.get("digest") != self.digest:
            raise FitError(
                f"{self.path.parent} holds another training (other texts, model or settings). "
                "Choose another folder, or delete that one."
            )
        step = int(head["step"])
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(saved[name])
                adam.state[tensor] = dict(
                    step=torch.tensor(float(step)),
                    exp_avg=saved[f"first.{name}"],
                    exp_avg_sq=saved[f"second.{name}"],
                )
            silent_for.copy_(saved["silent_for"])
        return step

    def write(self, step: int, weights, adam, silent_for) -> None:
        tensors = {name: tensor.detach() for name, tensor in weights.items()}
        for name, tensor in weights.items():
            tensors[f"first.{name}"] = adam.state[tensor]["exp_avg"]
            tensors[f"second.{name}"] = adam.state[tensor]["exp_avg_sq"]
        tensors["silent_for"] = silent_for
        part = self.path.with_suffix(".part")
        save_file({k: t.contiguous().clone() for k, t in tensors.items()}, part,
                  metadata=dict(step=str(step), digest=self.digest))  # fmt: skip
        os.replace(part, self.path)
