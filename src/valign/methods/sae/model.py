"""A sparse autoencoder of one residual site, in the file layout of SAELens.

    f(a) = act((a - b_dec) W_enc + b_enc)        features, few of them above zero
    a'   = f W_dec + b_dec

act is ReLU, JumpReLU (x where x > threshold, else 0; arXiv 2407.14435) or TopK (ReLU on the k
largest, 0 elsewhere; arXiv 2406.04093). A folder holds `cfg.json` and `sae_weights.safetensors`
(W_enc, b_enc, W_dec, b_dec, and threshold for JumpReLU), as `sae.save_model` of SAELens writes
them; layouts from before its version 6 are read, too. Files are data: JSON and safetensors.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from valign.control import Site
from valign.values import ValignError

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
Activation = Literal["relu", "jumprelu", "topk"]
_ARCHITECTURES: dict[str, Activation] = {
    "standard": "relu",
    "jumprelu": "jumprelu",
    "topk": "topk",
}
_HOOK = re.compile(r"blocks\.(\d+)\.hook_resid_(pre|post)")


class SAEFileError(ValignError, ValueError):
    """A folder that holds no sparse autoencoder, or one of a kind that cannot be run here."""


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A dictionary of features at one site.

    Attributes:
        w_enc, b_enc: (width, n_features) and (n_features,).
        w_dec, b_dec: (n_features, width) and (width,); a row of w_dec is a feature's direction.
        site: where it reads, a residual site.
        activation: see the module's formula.
        threshold: (n_features,), JumpReLU only.
        k: TopK only.
        centred: whether b_dec is taken off the input.
        by_norm: TopK only; activations are scaled by the norms of w_dec's rows and back.
        notes: model name and how it was trained, JSON-able.
    """

    w_enc: torch.Tensor
    b_enc: torch.Tensor
    w_dec: torch.Tensor
    b_dec: torch.Tensor
    site: Site
    activation: Activation
    threshold: torch.Tensor | None = None
    k: int | None = None
    centred: bool = True
    by_norm: bool = False
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width, n = self.w_enc.shape
        shapes = {
            "W_dec": (self.w_dec, (n, width)),
            "b_enc": (self.b_enc, (n,)),
            "b_dec": (self.b_dec, (width,)),
        }
        if self.activation == "jumprelu":
            if self.threshold is None:
                raise SAEFileError("A JumpReLU autoencoder needs its `threshold`.")
            shapes["threshold"] = (self.threshold, (n,))
        if self.activation == "topk" and not (self.k and 0 < self.k <= n):
            raise SAEFileError(f"A TopK autoencoder of {n} features needs k in 1..{n}: {self.k}.")
        for name, (tensor, shape) in shapes.items():
            if tuple(tensor.shape) != shape:
                raise SAEFileError(f"{name} is {tuple(tensor.shape)}, expected {shape}.")

    @property
    def width(self) -> int:
        return self.w_enc.shape[0]

    @property
    def n_features(self) -> int:
        return self.w_enc.shape[1]

    def encode(self, a: torch.Tensor) -> torch.Tensor:
        """Features of activations, (..., width) -> (..., n_features)."""
        x = a.to(self.w_enc) - self.b_dec if self.centred else a.to(self.w_enc)
        z = x @ self.w_enc + self.b_enc
        if self.activation == "relu":
            return z.relu()
        if self.threshold is not None:
            return z.relu() * (z > self.threshold)
        if self.by_norm:
            z = z * self.w_dec.norm(dim=-1)
        largest = z.topk(self.k or 0, dim=-1)
        return torch.zeros_like(z).scatter(-1, largest.indices, largest.values.relu())

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        """Activations that features stand for, (..., n_features) -> (..., width)."""
        if self.by_norm:
            f = f / self.w_dec.norm(dim=-1)
        return f @ self.w_dec + self.b_dec

    def direction(self, feature: int) -> torch.Tensor:
        """What one feature writes, unit norm, (width,).

        Raises:
            SAEFileError: there is no such feature, or it writes nothing.
        """
        if not 0 <= feature < self.n_features:
            raise SAEFileError(f"Feature {feature}: this one has 0 to {self.n_features - 1}.")
        row = self.w_dec[feature]
        if not row.norm() > 0:
            raise SAEFileError(f"Feature {feature} writes nothing: its decoder row is zero.")
        return row / row.norm()

    def save(self, folder: str | Path) -> Path:
        """Write both files; SAELens reads them with `SAE.load_from_disk`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        names = {"relu": "standard", "jumprelu": "jumprelu", "topk": "topk"}
        config: dict[str, Any] = dict(
            architecture=names[self.activation],
            d_in=self.width,
            d_sae=self.n_features,
            dtype="float32",
            device="cpu",
            apply_b_dec_to_input=self.centred,
            normalize_activations="none",
            reshape_activations="none",
            metadata={
                "sae_lens_version": "6.0.0",
                "hook_name": f"blocks.{self.site.layer}.hook_resid_post",
                **self.notes,
            },
        )
        if self.activation == "topk":
            config |= dict(k=self.k, rescale_acts_by_decoder_norm=self.by_norm)
        tensors = dict(W_enc=self.w_enc, b_enc=self.b_enc, W_dec=self.w_dec, b_dec=self.b_dec)
        if self.threshold is not None:
            tensors["threshold"] = self.threshold
        save_file({k: t.float().contiguous() for k, t in tensors.items()}, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> SparseAutoencoder:
        """Read a folder of SAELens, or one that `save` wrote.

        Raises:
            SAEFileError: files that are missing or damaged; an architecture, a place or a
                normalisation of inputs that is not run here. The message names it.
        """
        folder = Path(folder).expanduser()
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise SAEFileError(
                    f"No {name} in {folder}. Expected the folder of one SAE as SAELens writes it: "
                    f"{CONFIG} and {WEIGHTS}."
                )
        try:
            config = json.loads((folder / CONFIG).read_text("utf-8"))
            tensors = {k: t.float() for k, t in load_file(folder / WEIGHTS).items()}
        except (SafetensorError, ValueError, OSError) as error:
            raise SAEFileError(f"{folder} is damaged: {error}") from None
        if not isinstance(config, dict):
            raise SAEFileError(f"{folder / CONFIG} holds no settings.")
        if missing := {"W_enc", "b_enc", "W_dec", "b_dec"} - set(tensors):
            raise SAEFileError(f"{folder / WEIGHTS} lacks {', '.join(sorted(missing))}.")
        notes = config.get("metadata") or {
            name: config[name] for name in ("model_name", "hook_name") if name in config
        }
        kind, k = _activation(config)
        return cls(
            w_enc=tensors["W_enc"],
            b_enc=tensors["b_enc"],
            w_dec=tensors["W_dec"],
            b_dec=tensors["b_dec"],
            site=_site({**config, **notes}),
            activation=kind,
            threshold=tensors.get("threshold") if kind == "jumprelu" else None,
            k=k,
            centred=bool(config.get("apply_b_dec_to_input", True)),
            by_norm=bool(config.get("rescale_acts_by_decoder_norm", False)),
            notes=notes,
        )


def _activation(config: dict[str, Any]) -> tuple[Activation, int | None]:
    name = config.get("architecture", "standard")
    k = config.get("k")
    old = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    if name == "standard" and old == "topk":  # as written before SAELens 6
        name, k = "topk", (config.get("activation_fn_kwargs") or {}).get("k")
    if name not in _ARCHITECTURES or (name == "standard" and old != "relu"):
        raise SAEFileError(
            f"Its architecture is {name} with {old}; here run {', '.join(_ARCHITECTURES)} "
            "(ReLU, JumpReLU, TopK)."
        )
    scaled = config.get("normalize_activations", "none")
    if scaled not in ("none", False, None, "expected_average_only_in"):
        raise SAEFileError(
            f"Its inputs are scaled by {scaled}; here they are taken as they are. Fold the scale "
            "into the weights with SAELens, or choose another SAE."
        )
    return _ARCHITECTURES[name], int(k) if name == "topk" and k else None


def _site(config: dict[str, Any]) -> Site:
    hook = str(config.get("hook_name") or config.get("hook_point"))
    found = _HOOK.fullmatch(hook)
    if found is None or (found[1], found[2]) == ("0", "pre"):
        raise SAEFileError(
            f"It reads {hook!r}; here read features of the residual stream after a block, "
            "blocks.L.hook_resid_post or hook_resid_pre."
        )
    return Site("resid", int(found[1]) - (found[2] == "pre"))


@dataclass(frozen=True)
class Fidelity:
    """How well a dictionary writes what it read.

    Attributes:
        r2: 1 - squared error / squared distance from the mean; 1 is perfect, below 0 is worse
            than saying the mean: another model, another layer, another number type.
        l0: mean number of features above zero at a token.
        silent: share of features that were never above zero.
        tokens: how many were read.
    """

    r2: float
    l0: float
    silent: float
    tokens: int


@torch.no_grad()
def fidelity(sae: SparseAutoencoder, states: Iterable[torch.Tensor]) -> Fidelity:
    """Measure on batches of activations, each (tokens, width)."""
    n, on = 0, 0.0
    error = squares = 0.0
    total = torch.zeros(sae.width, dtype=torch.float64)
    fired = torch.zeros(sae.n_features, dtype=torch.bool)
    for a in states:
        f = sae.encode(a)
        error += float((sae.decode(f) - a).double().square().sum())
        squares += float(a.double().square().sum())
        total += a.double().sum(0).cpu()
        fired |= (f > 0).any(0).cpu()
        on += float((f > 0).sum())
        n += len(a)
    if not n:
        raise SAEFileError("No tokens were given, so nothing can be said about its fidelity.")
    spread = squares - float(total.square().sum()) / n
    r2 = 1 - error / spread if spread > 0 else math.nan
    return Fidelity(r2, on / n, float((~fired).float().mean()), n)
