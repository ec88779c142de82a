"""What MVA and its competitors share: settings, one adapter a value, the control made of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator

from valign.control.weights import WeightsControl
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import MethodSettingError
from valign.methods.gate import gate_where
from valign.methods.mva.combine import control_of
from valign.methods.mva.modules import ALL, check_modules
from valign.methods.mva.samples import Sample, logps, tokenised
from valign.methods.mva.training import Recipe, Trained, train_adapter
from valign.methods.readings import need_pairs
from valign.values import Profile


class AdapterMethod(Method):
    """Base of the methods that train LoRA adapters on a corpus' pairs: positive over negative.

    Every adapter is trained *towards* its value; the target's number becomes its weight, so that
    `power=-0.5` subtracts half of it. Figures marked untuned were chosen once and measured by
    nobody.
    """

    trains_strength: ClassVar[bool] = True
    loss: ClassVar[Literal["sigmoid", "sigmoid_norm", "sft"]] = "sigmoid"

    rank: int = Field(default=16, ge=1)
    """Of the adapters (the paper: 64; ours, untuned)."""
    alpha: float = Field(default=32.0, gt=0)
    """LoRA's alpha; updates are scaled by alpha / rank (the paper: 2)."""
    modules: tuple[str, ...] | Literal["all-linear"] = ALL
    """Names of the linear layers that get an adapter, whole or their ends, e.g. `q_proj,v_proj`, or
    `all-linear` (the paper: q, k, v and o; ours, untuned)."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the pairs (the released code: 3)."""
    steps: int = Field(default=0, ge=0)
    """Steps instead of passes; 0 goes by `epochs`."""
    rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate (the paper: 1e-5 with 160,000 pairs; ours, untuned)."""
    batch_size: int = Field(default=8, ge=1)
    """Pairs per step, over all processes (the paper: 2)."""
    accumulate: int = Field(default=1, ge=1)
    """Parts that a step is cut into, to save memory."""
    recompute: bool = False
    """Gradient checkpointing: less memory, more time."""
    order: tuple[str, ...] = ()
    """Values to train first, in this order; the others follow in the value system's."""
    save_every: int = Field(default=100, ge=1)
    """Steps between checkpoints."""
    consistency: float | None = Field(default=None, ge=-1, le=1)
    """Train only on pairs whose chosen answer is better in all of the target's values: least cosine
    between a pair's gaps in them and (1, ..., 1), e.g. 0.5 (VC-Soup); by default all pairs."""
    detector: str = "english-a"
    """Who scores pairs for `consistency`, where the corpus is not the world's."""
    gate: bool = False
    """Wear the adapters only for prompts that have to do with values (`methods/gate.py`; ours)."""
    seed: int = 0
    """Of the adapters' start and the order of the pairs."""
    checkpoint: Path | None = Field(default=None, exclude=True)
    """Folder for finished adapters and checkpoints; the same fit goes on from them after a stop."""

    @field_validator("order", mode="before")
    @classmethod
    def _one_name(cls, order: Any) -> Any:
        return (order,) if isinstance(order, str) and order else order or ()

    @field_validator("modules", mode="before")
    @classmethod
    def _one_module(cls, modules: Any) -> Any:
        return (modules,) if isinstance(modules, str) and modules != ALL else modules

    def recipe(self) -> Recipe:
        """The settings as a recipe."""
        shared = Recipe.__dataclass_fields__.keys() & type(self).model_fields.keys()
        return Recipe(loss=self.loss, **{name: getattr(self, name) for name in shared})

    def reference(self, lm: HostModel, corpus: Corpus, value: str) -> torch.Tensor:
        """The reference columns of a value's samples, (n, 2); by default the model's own."""
        key = ("reference", corpus.fingerprint, value)
        if key not in lm.memo:
            lm.memo[key] = logps(lm, self.samples(lm, corpus, value))
        return lm.memo[key]

    def samples(self, lm: HostModel, corpus: Corpus, value: str) -> list[Sample]:
        """The tokenised pairs of a value, kept in `lm.memo`."""
        key = ("samples", corpus.fingerprint, value)
        if key not in lm.memo:
            lm.memo[key] = tokenised(lm, corpus.pairs_of(value))
        return lm.memo[key]

    def in_order(self, target: Profile) -> dict[str, float]:
        """The target's values and numbers, in the order of training.

        Raises:
            MethodSettingError: `order` names a value that is no target.
        """
        named = dict(target.named)
        strange = [value for value in self.order if value not in named]
        if strange:
            raise MethodSettingError(
                f"order names {', '.join(strange)}, the target {', '.join(named)}."
            )
        return {value: named[value] for value in (*self.order, *named)}

    def adapters(self, lm: HostModel, corpus: Corpus, target: Profile) -> list[Trained]:
        """One adapter for each of the target's values."""
        recipe = self.recipe()
        alone = replace(recipe, penalty="none", strength=None)  # the same work for every penalty
        done: list[Trained] = []
        for value in self.in_order(target):
            done.append(
                train_adapter(
                    lm,
                    self.samples(lm, corpus, value),
                    self.reference(lm, corpus, value),
                    recipe if done else alone,
                    label=value,
                    earlier=done,
                    folder=self.checkpoint,
                )
            )
        return done

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> WeightsControl:
        need_training()
        check_modules(lm, self.modules)
        corpus, counts = self.consistent(corpus, target)
        need_pairs(corpus, target)
        control = self.trained(lm, corpus, target)
        gate, gate_accuracy = gate_where(self.gate, lm, corpus, target, seed=self.seed)
        made = dict(pairs_kept=counts, gate_accuracy=gate_accuracy)
        told = {name: figures for name, figures in made.items() if figures}
        return replace(control, gate=gate, provenance={**control.provenance, **told})

    def trained(self, lm: HostModel, corpus: Corpus, target: Profile) -> WeightsControl:
        """The control, from the pairs that are left; by default an adapter each."""
        return control_of(target, self.adapters(lm, corpus, target))

    def consistent(
        self, corpus: Corpus, target: Profile
    ) -> tuple[Corpus, dict[str, tuple[int, int]]]:
        """The corpus after `consistency`, and pairs kept and given for each value."""
        if self.consistency is None:
            return corpus, {}
        from valign.detect import Detector, load_detector
        from valign.methods.mva.consistency import consistent_part

        scorer: Detector
        if corpus.of_world:
            from valign.world.tuner import WorldTuner

            scorer = WorldTuner()
        else:
            scorer = load_detector(self.detector, system=corpus.system)
        return consistent_part(corpus, tuple(target.named), self.consistency, scorer)


def need_training() -> None:
    """Refuse early where the trainers are not installed.

    Raises:
        MethodSettingError: names the extra to install.
    """
    from importlib.util import find_spec

    lacking = [name for name in ("trl", "peft", "datasets") if find_spec(name) is None]
    if lacking:
        raise MethodSettingError(
            f"Training adapters needs {', '.join(lacking)}: pip install 'valign[train]'."
        )
