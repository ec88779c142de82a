"""SVGT: an independent value module guides the frozen model through latent bridge tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator

from valign.control import BridgeControl
from valign.control.bridge import BridgeMode
from valign.corpora.types import Corpus
from valign.lm import HostModel, UnsupportedSiteError
from valign.lm.bridge_module import Guide, LatentBridge, ValueModule, goals_of
from valign.methods.base import Method
from valign.methods.errors import MethodSettingError
from valign.methods.svgt.data import States, labelled, need_scores, read_states, wished
from valign.methods.svgt.speak import Losses, train_bridge
from valign.methods.svgt.value import train_value
from valign.values import Profile


class SVGT(Method):
    """Stable Value Guidance Transformer (arXiv 2605.11712), built from the paper's description.

        z  = R(f_u(h_v) + lambda CrossAttn(f_c(h_v), f_c(h_p)))       value state at block l*
        dz = J^T (J J^T + eps I)^-1 (D* - D(z)),  J = dD/dz           towards the goals D*
        B  = rho LN(h + alpha (softmax(Q C^T / sqrt d) C + Q)),  C = [h; phi(dz)]

    K tokens B stand behind the prompt for the blocks above l*; answer tokens attend to them, the
    residual stream is never written to. They are made anew every `refresh` tokens. On target, dz
    is 0 and the bridge invisible.

    Helps where the push must depend on the context: harmful requests beside harmless ones in the
    same words. Hurts where there is little to learn from: it trains two small networks, minutes on
    a small model, where CAA takes a mean.

    Trained in three stages: scores alone, scores in context, the bridge. The value module is
    trained once for all values of a corpus and shared by all targets. Departures from the paper
    (marked in `lm/bridge_module.py` and `lm/bridge_splice.py`): one encoder for training and
    guidance; several values with goals; scores without a goal are held still; a dead zone; strength
    as odds of attention, so that a dose can be set; learning rates for small corpora.
    """

    name: ClassVar[str] = "svgt"
    trains_strength: ClassVar[bool] = True

    mode: BridgeMode = "bridge"
    """`bridge`, or `inject`: the decoded correction is added to the residual stream (the paper's
    ablation; how it is wired there is not known)."""
    layer: Literal["auto"] | int = "auto"
    """Block l* that is read; `auto` is two fifths up (ours, chosen on training requests of the
    reference model; the paper: 0.58 to 0.71)."""
    tokens: int = Field(default=5, ge=1, le=64)
    """K, bridge tokens (the paper: 5 to 10)."""
    size: int = Field(default=128, ge=8)
    """d_v, width of the value state (the paper: 128 to 256)."""
    heads: int = Field(default=4, ge=1)
    """Heads of pooling and cross attention; they divide `size`."""
    refresh: int = Field(default=5, ge=0)
    """The bridge is made anew every so many tokens; 0 keeps the first one."""
    momentum: float = Field(default=0.8, ge=0, lt=1)
    """Share of the old bridge in the new one."""
    goal: float = Field(default=2.0, gt=0)
    """Logit a score is brought to, times the target's number (ours; the paper stops at 0)."""
    dead_zone: float = Field(default=0.25, ge=0)
    """Shortfalls below this, in logits, count as on target (ours)."""
    ramp: float = Field(default=1.0, gt=0)
    """Shortfall at which guidance is fully on (ours)."""
    pairs: int = Field(default=40, ge=8)
    """Contrast pairs of each value that the value module learns from; the bridge learns from as
    many of the target's."""
    epochs: int = Field(default=12, ge=1)
    """Passes over the data in stages 1 and 2 (the paper: 5, of far more texts)."""
    bridge_epochs: int = Field(default=16, ge=1)
    """Passes over the wanted answers in stage 3 (the paper: 5, of far more texts)."""
    rate: float = Field(default=1e-3, gt=0)
    """Learning rate of stages 1 and 2 (the paper: 1e-4 and 5e-4, on far more texts)."""
    bridge_rate: float = Field(default=5e-2, gt=0)
    """Learning rate of stage 3 (the paper: 5e-4, on far more texts)."""
    batch_size: int = Field(default=8, ge=1)
    """Texts a step in stage 3; four times as many in stages 1 and 2, which run no host."""
    ce: float = Field(default=1.0, ge=0)
    """Weight of the cross entropy on the wanted answers."""
    pull: float = Field(default=0.5, ge=0)
    """Weight of the loss that brings the guided answer's scores to their goals."""
    norm: float = Field(default=0.1, ge=0)
    """Weight of the loss that keeps bridge tokens as long as hidden states."""
    slack: float = Field(default=0.2, ge=0)
    """Relative difference in length that is free."""
    search: bool = False
    """Choose l*, d_v and K on validation texts first: a few short trainings (ours)."""
    seed: int = 0
    """Of initial weights and of the order of texts."""
    checkpoint: Path | None = Field(default=None, exclude=True)
    """Folder for checkpoints; the same fit goes on from them after a stop. Changes no result."""

    @field_validator("heads")
    @classmethod
    def _divides(cls, heads: int, info: Any) -> int:
        size = info.data.get("size", heads)
        if size % heads:
            raise ValueError(f"{heads} heads do not divide size={size}")
        return heads

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> BridgeControl:
        scores = need_scores(corpus, target)
        chosen, tried = self, []
        if self.search:
            from valign.methods.svgt.search import search

            chosen, tried = search(self, lm, corpus, target)
        layer = chosen.block(lm)
        value, figures = chosen.value_module(lm, corpus, scores, layer)
        guide, errors = chosen.bridge(lm, corpus, target, value, scores, layer)
        tensors = {f"value.{k}": t.detach().cpu() for k, t in value.state_dict().items()}
        tensors |= {f"bridge.{k}": t.detach().cpu() for k, t in guide.bridge.state_dict().items()}
        return BridgeControl(
            target=target,
            layer=layer,
            tensors=tensors,
            scores=scores,
            goals=chosen.goals(target),
            tokens=chosen.tokens,
            heads=chosen.heads,
            mode=chosen.mode,
            refresh=chosen.refresh,
            momentum=chosen.momentum,
            dead_zone=chosen.dead_zone,
            ramp=chosen.ramp,
            provenance=dict(
                sites=[f"resid:{layer}"],
                scores=list(scores),
                balanced_accuracy=figures,
                bridge_loss=[round(e, 4) for e in errors],
                gate=round(float(guide.bridge.gate), 4),
                searched=tried,
            ),
        )

    def goals(self, target: Profile) -> dict[str, float]:
        """Logit per value of the target."""
        return {value: self.goal * score for value, score in target.named.items()}

    def block(self, lm: HostModel) -> int:
        """Block l*.

        Raises:
            MethodSettingError: a layer the model does not have, or without a block above.
            UnsupportedSiteError: a model of one block has none above it.
        """
        deepest = lm.n_layers - (2 if self.mode == "bridge" else 1)
        if deepest < 0:
            raise UnsupportedSiteError(
                f"{lm.name} has {lm.n_layers} block; a bridge needs one above the one it reads. "
                "Fit with mode=inject."
            )
        if self.layer == "auto":
            return max(min(round(0.4 * lm.n_layers), deepest), 0)
        if not 0 <= self.layer <= deepest:
            raise MethodSettingError(
                f"svgt: layer={self.layer}: {lm.name} admits 0 to {deepest} with mode={self.mode}."
            )
        return self.layer

    def states(
        self, lm: HostModel, corpus: Corpus, scores: tuple[str, ...], layer: int
    ) -> tuple[States, States]:
        """Training and validation states, kept in `lm.memo`."""
        key = ("svgt states", corpus.fingerprint, scores, layer, self.pairs, self.seed)
        if key not in lm.memo:
            train, held = labelled(corpus, scores, pairs=self.pairs, seed=self.seed)
            lm.memo[key] = read_states(lm, train, layer), read_states(lm, held, layer)
        return lm.memo[key]

    def value_module(
        self, lm: HostModel, corpus: Corpus, scores: tuple[str, ...], layer: int
    ) -> tuple[ValueModule, dict[str, Any]]:
        """Stages 1 and 2; once for all targets, kept in `lm.memo`."""
        about = dict(
            corpus=corpus.fingerprint, scores=list(scores), layer=layer, size=self.size,
            heads=self.heads, pairs=self.pairs, epochs=self.epochs, rate=self.rate,
            batch_size=self.batch_size, seed=self.seed,
        )  # fmt: skip
        key = ("svgt value", *map(str, about.values()))
        if key not in lm.memo:
            train, held = self.states(lm, corpus, scores, layer)
            lm.memo[key] = train_value(
                train, held, width=lm.layout.width, size=self.size, heads=self.heads,
                epochs=self.epochs, rate=self.rate, batch_size=4 * self.batch_size,
                seed=self.seed, device=lm.device, folder=self._folder,
                key={**about, "model": lm.fingerprint},
            )  # fmt: skip
        return lm.memo[key]

    def bridge(
        self,
        lm: HostModel,
        corpus: Corpus,
        target: Profile,
        value: ValueModule,
        scores: tuple[str, ...],
        layer: int,
    ) -> tuple[Guide, list[float]]:
        """Stage 3; the guide with its trained bridge and the validation loss of each epoch."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            bridge = LatentBridge(width=lm.layout.width, size=self.size, tokens=self.tokens)
        goal, side = goals_of(scores, self.goals(target), target.named)
        guide = Guide(
            value, bridge.to(lm.device), layer, scores, goal.to(lm.device), side.to(lm.device),
            tokens=self.tokens, mode=self.mode, refresh=self.refresh, momentum=self.momentum,
            dead_zone=self.dead_zone, ramp=self.ramp, method=self.name,
        )  # fmt: skip
        wanted, stay = wished(corpus, target, pairs=self.pairs, seed=self.seed)
        errors = train_bridge(
            lm, guide, wanted, stay,
            losses=Losses(self.ce, self.pull, self.norm, self.slack),
            epochs=self.bridge_epochs, rate=self.bridge_rate, batch_size=self.batch_size,
            seed=self.seed, folder=self._folder,
            key=dict(corpus=corpus.fingerprint, model=lm.fingerprint, target=target.named,
                     settings=self.settings),
        )  # fmt: skip
        guide.bridge.requires_grad_(False)
        return replace(guide), errors

    @property
    def _folder(self) -> Path | None:
        return None if self.checkpoint is None else self.checkpoint.expanduser()
