"""SAE steering: add what the value's own features write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BeforeValidator, Field

from valign.control import Edit, EditsControl
from valign.corpora.types import Corpus, Pair
from valign.lm import HostModel, capture
from valign.methods.base import Method
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.readings import need_pairs, paired_values, sides
from valign.methods.sae.model import SparseAutoencoder, fidelity
from valign.methods.sae.training import Recipe, fit_sae, token_states
from valign.values import Profile


def _one(numbers: Any) -> Any:
    one = isinstance(numbers, int) or (isinstance(numbers, str) and numbers.isdigit())
    return (numbers,) if one else numbers


class SAE(Method):
    """Steering by the features of a sparse autoencoder.

        f(a)     features of an activation; W_j what feature j writes
        c_j      mean of f_j over the tokens of v's positive texts - over its negative ones
        F_v      the features with the largest |c_j| / their spread over texts
        a <- a + sum_v s_v sum_{j in F_v} c_j W_j

    The paper behind the value causal graph (arXiv 2501.00581) adds 100 W_j of one feature at a
    time, chosen by its activation on the words "your values"; `numbers` does so. Choosing by the
    contrast, over texts, and weighting by it are ours: with all features it would be CAA through
    the eyes of the dictionary.

    Helps where a value has features of its own, and says which: each has a number that can be
    looked up. Hurts where the dictionary does not fit: features of another model or layer are
    noise, so its R2 on the corpus is measured first, and below `least_r2` it is refused.

    Without `path` a small dictionary is trained on the corpus's own texts, which is enough to try
    the method out and not a replacement for one trained on millions of tokens. Public ones were
    often trained on base models: an instruction-tuned model has other activations.
    """

    name: ClassVar[str] = "sae"

    path: str = ""
    """Folder of an SAE as SAELens writes it (`cfg.json`, `sae_weights.safetensors`); empty trains
    one."""
    features: int = Field(default=16, ge=1)
    """Features steered per value (ours, untuned)."""
    numbers: Annotated[tuple[int, ...], BeforeValidator(_one)] = ()
    """Steer these features, each alike, instead of choosing; for targets of one value."""
    least_r2: float = Field(default=0.2, lt=1)
    """Refuse a dictionary that explains less of the corpus's activations (ours, untuned)."""
    layer: int | None = Field(default=None, ge=0)
    """Where one is trained; none is the middle layer (ours, untuned)."""
    expansion: int = Field(default=4, ge=1)
    """Features per coordinate of one that is trained (ours, untuned)."""
    k: int = Field(default=16, ge=1)
    """Features that are on at a token in one that is trained (ours, untuned)."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the corpus in training (ours, untuned)."""
    max_tokens: int = Field(default=200_000, ge=100)
    """Tokens it is trained on, at most; width x 4 bytes of memory each."""
    seed: int = 0
    """Of the training."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        if self.numbers and len(target.named) > 1:
            raise MethodSettingError(
                "sae: numbers=...: which value each feature belongs to is not known. Name one "
                "value, or leave `numbers` out."
            )
        sae = self._dictionary(lm, corpus)
        found = {v: self._contrast(lm, corpus, v, sae) for v in target.named}
        r2 = min(contrast.r2 for contrast in found.values())
        if not r2 >= self.least_r2:
            raise FitError(
                f"sae: the dictionary at {sae.site} explains R2 = {r2:.2f} of this model's "
                f"activations, {self.least_r2} are asked for. Take one made for {lm.name} and this "
                "layer, train longer (epochs=...), or lower least_r2 if you know why."
            )
        vector = torch.zeros(sae.width)
        chosen: dict[str, dict[str, float]] = {}
        for value, score in target.named.items():
            size = self._sizes(sae, found[value])
            chosen[value] = {str(j): round(float(size[j]), 4) for j in size}
            for feature, amount in size.items():
                vector += score * amount * sae.direction(feature)
        if not vector.norm() > 0:
            raise FitError("sae: no feature tells this value's texts apart, so nothing is added.")
        return EditsControl(
            target=target,
            edits=(Edit(site=sae.site, kind="add", tensors=dict(vector=vector)),),
            provenance=dict(sites=[str(sae.site)], features=chosen, r2=round(r2, 3), sae=sae.notes),
        )

    def _sizes(self, sae: SparseAutoencoder, contrast: _Contrast) -> dict[int, float]:
        """feature -> how much of its unit direction is added, strongest evidence first."""
        if self.numbers:
            return dict.fromkeys(self.numbers, 1.0)
        order = contrast.effect.abs().argsort(descending=True)[: self.features].tolist()
        written = contrast.gap if sae.by_norm else contrast.gap * sae.w_dec.norm(dim=1)
        return {j: float(written[j]) for j in order if contrast.gap[j] != 0}

    def _dictionary(self, lm: HostModel, corpus: Corpus) -> SparseAutoencoder:
        if self.path:
            sae = SparseAutoencoder.load(self.path)
            if sae.width != lm.layout.width or sae.site.layer >= lm.n_layers:
                raise FitError(
                    f"sae: {self.path} is {sae.width} wide at {sae.site}; {lm.name} is "
                    f"{lm.layout.width} wide and has layers 0 to {lm.n_layers - 1}."
                )
            return sae
        sites = lm.sites("resid")
        layer = (len(sites) - 1) // 2 if self.layer is None else self.layer
        if layer >= len(sites):
            raise MethodSettingError(
                f"sae: layer={layer}: the model has layers 0 to {len(sites) - 1}."
            )
        recipe = Recipe(expansion=self.expansion, k=self.k, epochs=self.epochs, seed=self.seed)
        key = ("sae", corpus.fingerprint, layer, self.max_tokens, *asdict(recipe).items())
        if key not in lm.memo:
            pairs = [pair for value in paired_values(corpus) for pair in corpus.pairs_of(value)]
            train, test = token_states(lm, sides(pairs), sites[layer], max_tokens=self.max_tokens)
            sae = fit_sae(train, sites[layer], recipe=recipe)
            sae.notes["fidelity"] = asdict(fidelity(sae, test.split(4096)))
            lm.memo[key] = sae
        return lm.memo[key]

    def _contrast(
        self, lm: HostModel, corpus: Corpus, value: str, sae: SparseAutoencoder
    ) -> _Contrast:
        pairs = corpus.pairs_of(value)
        if self.path:  # files may change under their name; a reading is cheap
            return _contrast(lm, pairs, sae)
        key = ("sae-contrast", corpus.fingerprint, value, id(sae))
        if key not in lm.memo:
            lm.memo[key] = _contrast(lm, pairs, sae)
        return lm.memo[key]


def feature_control(sae: SparseAutoencoder, feature: int, target: Profile) -> EditsControl:
    """One feature's direction, added: an intervention for the value causal graph.

    Strength 1 adds a vector of norm 1; set a dose, as for every control.

    Args:
        target: for the record; a feature's effect on values is what is to be found out.

    Raises:
        SAEFileError: no such feature.
    """
    edit = Edit(site=sae.site, kind="add", tensors=dict(vector=sae.direction(feature)))
    return EditsControl(
        target=target, edits=(edit,), provenance=dict(method="sae-feature", feature=feature)
    )


@dataclass(frozen=True, eq=False)
class _Contrast:
    """Attributes:
    gap: mean feature over positive texts - over negative ones, (n_features,).
    effect: gap by the spread over texts.
    r2: of the dictionary on all these texts' tokens.
    """

    gap: torch.Tensor
    effect: torch.Tensor
    r2: float


def _contrast(lm: HostModel, pairs: tuple[Pair, ...], sae: SparseAutoencoder) -> _Contrast:
    """One pass over a value's pairs; memory holds sums over texts, not texts."""
    n = len(pairs)
    total, squares = torch.zeros(2, sae.n_features), torch.zeros(2, sae.n_features)

    def states() -> Iterator[torch.Tensor]:
        for numbers, batch in capture(lm, sides(pairs), [sae.site], positions="tokens"):
            f, owner = sae.encode(batch[sae.site]), torch.tensor(numbers)
            for text in owner.unique():
                mean = f[owner == text].mean(0)
                total[int(text >= n)] += mean
                squares[int(text >= n)] += mean.square()
            yield batch[sae.site]

    found = fidelity(sae, states())
    mean = total / n
    variance = (squares / n - mean.square()).clamp_min(0).mean(0)
    gap = mean[0] - mean[1]
    # A feature that is on in one text only has a tiny spread: an absolute floor keeps it small.
    floor = variance.max().sqrt() * 0.05
    return _Contrast(gap, gap / (variance.sqrt() + floor.clamp_min(1e-9)), found.r2)
