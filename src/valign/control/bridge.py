"""Bridge controls: a value module beside the model that speaks to it through latent tokens.

The control holds the networks as plain tensors and the numbers that say how they are used; what
they compute is `valign.lm.bridge_module`, how a model runs under them `valign.lm.bridge`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch

from valign.control.control import Control, Kind
from valign.control.edit import EditError

BridgeMode = Literal["bridge", "inject"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BridgeControl(Control):
    """A value module that reads block `layer` and guides the blocks above it.

    Attributes:
        layer: the block l* whose output is read; the blocks above it are guided.
        tensors: the networks' weights, `value.*` and `bridge.*`.
        scores: what the value module's outputs mean, in order: value names.
        goals: value -> logit that its score is brought to; from below where the target's number
            is positive, from above where it is negative. Scores without a goal are held still.
        tokens: K, bridge tokens a row; 0 is the plain model.
        heads: attention heads of the value module.
        mode: `bridge` binds latent tokens, `inject` adds the decoded correction to the residual
            stream after block `layer` instead.
        refresh: the bridge is made anew every so many tokens; 0 keeps the first one (static).
        momentum: share of the old bridge in the new one.
        dead_zone: shortfalls smaller than this, in logits, count as on target.
        ramp: shortfall in logits at which guidance is fully on; below it fades to off.
        strength: factor on the odds with which the model attends to the bridge, and above 1 also
            on its gate (`inject`: on the shift); 0 is the plain model. Set through a dose.
    """

    kind: ClassVar[Kind] = "bridge"
    layer: int
    tensors: dict[str, torch.Tensor] = field(repr=False)
    scores: tuple[str, ...]
    goals: dict[str, float]
    tokens: int = 5
    heads: int = 4
    mode: BridgeMode = "bridge"
    refresh: int = 5
    momentum: float = 0.8
    dead_zone: float = 0.0
    ramp: float = 1.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise EditError(f"{name} of the bridge is not finite.")
        if self.mode not in ("bridge", "inject"):
            raise EditError(f"Unknown bridge mode {self.mode!r}; expected bridge or inject.")
        if not self.scores or not self.goals or set(self.goals) - set(self.scores):
            raise EditError(
                f"A bridge needs a goal for at least one of its scores; it scores "
                f"{', '.join(self.scores) or 'nothing'}, the goals name "
                f"{', '.join(self.goals) or 'nothing'}."
            )
        for name, least in (("layer", 0), ("tokens", 0), ("heads", 1), ("refresh", 0)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise EditError(
                    f"{name}={getattr(self, name)!r}: expected a whole number >= {least}."
                )
        for name in ("dead_zone", "ramp", "strength"):
            if not 0 <= getattr(self, name) < math.inf:
                raise EditError(f"{name}={getattr(self, name)}: expected a number >= 0.")
        if not 0 <= self.momentum < 1:
            raise EditError(f"momentum={self.momentum} is outside [0, 1).")

    def scaled(self, strength: float) -> BridgeControl:
        """The same bridge, `strength` times as strong.

        At 0 the bridge is invisible and the model is the plain one; the pull grows from there
        without a jump, which the published gate would not give: its tokens are seen in full
        however small the gate is. Beyond 1 the odds alone would saturate, so the gate grows too.
        Ours.
        """
        return replace(self, strength=self.strength * strength)


SETTINGS = ("layer", "scores", "goals", "tokens", "heads", "mode", "refresh", "momentum",
            "dead_zone", "ramp", "strength")  # fmt: skip
"""What goes into a file's header beside the tensors."""
