"""Edits: the small algebra between methods and engines.

An edit is one small change at one site of the forward pass. Methods make edits, engines carry
them out; neither knows the other. The kinds and their formulas, for an activation `a` of shape
(T, width) at the site:

    add       a + c
    push      a + gate * coefficient @ W_S,  the smallest move that brings W a + b to its target
    scale     a + strength * (s - 1) a  on chosen coordinates
    clamp     a + strength * (min(max(a, lo), hi) - a)  on chosen coordinates
    project   a - strength * (a v^T) v
    gradient  a + step * d scorer(a) / d a
    rotate    a, its part in a plane turned towards an angle, by at most `strength` radians
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from valign.values.errors import ValignError

SiteKind = Literal["resid", "neurons", "heads", "logits"]
EditKind = Literal["add", "push", "scale", "clamp", "project", "gradient", "rotate"]
Scope = Literal["all", "generation"]

TENSORS: dict[str, frozenset[str]] = {
    "add": frozenset({"vector"}),
    "push": frozenset({"weight", "bias", "target", "direction"}),
    "scale": frozenset({"index", "factor"}),
    "clamp": frozenset({"index", "low", "high"}),
    "project": frozenset({"vector"}),
    "gradient": frozenset({"w1", "b1", "w2"}),
    "rotate": frozenset({"plane", "angle"}),
}
"""The tensors each kind must bring; see `Edit` for their shapes."""


class EditError(ValignError, ValueError):
    """An edit whose tensors do not fit its kind."""


@dataclass(frozen=True, order=True)
class Site:
    """A place of the forward pass: `resid:5`, `neurons:3`, `heads:3` or `logits`.

    resid: the residual stream after block `layer`. neurons: the input of the down projection of
    block `layer`. heads: the input of the attention's output projection of block `layer`, all
    heads side by side. logits: the output of the language-model head (`layer` is 0).
    """

    kind: SiteKind
    layer: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "logits" else f"{self.kind}:{self.layer}"

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read what `str` wrote."""
        kind, _, layer = text.partition(":")
        if kind not in ("resid", "neurons", "heads", "logits") or not (layer or "0").isdigit():
            raise EditError(f"Unknown site {text!r}; expected for example resid:5 or neurons:3.")
        return cls(kind, int(layer or 0))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Gate:
    """Opens for a prompt when a linear reading of its last token passes a threshold.

    open(x) = 1[ max over sites of (w . a(x) + b) > 0 ], a(x) the unedited activation at the last
    prompt token. Read once a request, so it costs one pass over the prompt and nothing per token.

    Attributes:
        weights: site -> (w of shape (width,), b of shape ()).
    """

    weights: dict[Site, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Edit:
    """One small change at one site.

    Attributes:
        site: where.
        kind: which formula of the module's table.
        tensors: add: vector (width,). push: weight (k, width), bias (k,), target (k,) in logits,
            direction (k, width), the move that is made per unit of shortfall, already divided so
            that weight . direction = 1 in each row (dual basis, so several constraints at once
            keep the minimum norm); a method that learns its move may bring another.
            scale: index (n,), factor (n,).
            clamp: index (n,), low (n,), high (n,). project: vector (width,), unit norm.
            gradient: w1 (h, width), b1 (h,), w2 (h,), a scorer w2 . gelu(w1 a + b1).
            rotate: plane (2, width), orthonormal rows, or (1, width), and the second is what the
            activation has across the first; angle (), radians from the first towards the second.
        scope: `all` positions, or `generation` (the last prompt token and all later ones).
        hold: push only; compute the move at the last prompt token and hold it for the whole
            answer (ConVA's prompt-constant mode) instead of anew at every token.
        low, high: push only; optional clip of the edited coordinates, both (width,).
        strength: multiplies the change; set through a dose, see `valign.lm.dose`.
    """

    site: Site
    kind: EditKind
    tensors: dict[str, torch.Tensor]
    scope: Scope = "generation"
    hold: bool = False
    strength: float = 1.0
    low: torch.Tensor | None = field(default=None)
    high: torch.Tensor | None = field(default=None)

    def __post_init__(self) -> None:
        expected = TENSORS.get(self.kind)
        if expected is None:
            raise EditError(f"Unknown edit kind {self.kind!r}; expected one of {sorted(TENSORS)}.")
        if set(self.tensors) != expected:
            raise EditError(
                f"A {self.kind} edit brings {sorted(expected)}, got {sorted(self.tensors)}."
            )
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise EditError(f"{name} of the {self.kind} edit at {self.site} is not finite.")
        self._check_shapes()
        if self.kind != "push" and (self.hold or self.low is not None or self.high is not None):
            raise EditError(f"hold, low and high belong to push edits, not to {self.kind}.")

    def _check_shapes(self) -> None:
        t = self.tensors
        if self.kind in ("add", "project"):
            fits, rule = t["vector"].ndim == 1, "vector (width,)"
        elif self.kind == "push":
            k = t["weight"].shape[:1]
            fits = t["weight"].ndim == 2 and t["weight"].shape == t["direction"].shape
            fits = fits and t["bias"].shape == k and t["target"].shape == k
            rule = "weight and direction (k, width), bias and target (k,)"
        elif self.kind == "gradient":
            h = t["w1"].shape[:1]
            fits = t["w1"].ndim == 2 and t["b1"].shape == h and t["w2"].shape == h
            rule = "w1 (h, width), b1 and w2 (h,)"
        elif self.kind == "rotate":
            fits = t["plane"].ndim == 2 and len(t["plane"]) in (1, 2) and t["angle"].ndim == 0
            rule = "plane (1 or 2, width) and angle ()"
        else:
            index = t["index"]
            fits = index.ndim == 1 and not index.is_floating_point()
            fits = fits and all(tensor.shape == index.shape for tensor in t.values())
            rule = f"{', '.join(t)}, all (n,), index of integers"
        if not fits:
            shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in t.items())
            raise EditError(f"A {self.kind} edit needs {rule}; at {self.site} came {shapes}.")
        if self.kind == "clamp" and (t["low"] > t["high"]).any():
            raise EditError(f"The clamp edit at {self.site} has a low above its high.")
        if self.kind == "project" and abs(float(t["vector"].float().norm()) - 1) > 1e-2:
            raise EditError(
                f"The project edit at {self.site} needs a vector of norm 1, "
                f"got {float(t['vector'].float().norm()):.3g}; divide it by its norm."
            )
        if self.kind == "rotate":
            plane = t["plane"].float()
            if (plane @ plane.T - torch.eye(len(plane)).to(plane)).abs().max() > 1e-2:
                raise EditError(
                    f"The rotate edit at {self.site} needs rows of norm 1 at a right angle; take "
                    "torch.linalg.qr(plane.T).Q.T."
                )

    def scaled(self, strength: float) -> Edit:
        """The same edit, `strength` times as strong."""
        return replace(self, strength=self.strength * strength)
