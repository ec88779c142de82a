"""Plans: what a run does, decided before the first token is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from valign.methods import method_class
from valign.values import Profile, ValignError

BASELINES = ("none", "random", "prompt")
"""Methods every table holds, named or not."""

FITTED = "fitted"
"""Said in place of a dose: the control acts as strongly as its fit made it."""


class PlanError(ValignError, ValueError):
    """A plan that cannot be run."""


@dataclass(frozen=True)
class MethodChoice:
    """A method by name with its settings; `label` tells two settings of one method apart.

    Attributes:
        doses: its own in place of the plan's, None among them meaning as fitted.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    doses: tuple[float | None, ...] | None = None

    @property
    def label(self) -> str:
        if not self.settings:
            return self.name
        return self.name + "[" + ",".join(f"{k}={v}" for k, v in self.settings.items()) + "]"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Methods x targets x doses x seeds on one model.

    Attributes:
        methods: rows of the table.
        targets: wanted profiles, each a column of runs.
        doses: in nats (95th percentile of per-token KL), None for as fitted; methods without
            strength ignore them.
        seeds: each draws its own corpus, prompts and sampling.
        prompts, neutral, dose_prompts: how many of each, per seed.
        max_new_tokens: length of answers.
        temperature: of the judged answers; neutral questions are always answered greedily, since
            they count as unchanged only if the text is the same.
        batch_size: rows per batch; changes no text.
    """

    methods: tuple[MethodChoice, ...]
    targets: tuple[Profile, ...]
    doses: tuple[float | None, ...] = (0.5,)
    seeds: tuple[int, ...] = (0,)
    prompts: int = 60
    neutral: int = 20
    dose_prompts: int = 24
    max_new_tokens: int = 64
    temperature: float = 0.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.targets:
            raise PlanError("Nothing to steer towards: name a value, for example benevolence.")
        if not self.methods:
            raise PlanError("No method named; `valign methods` lists them.")
        for target in self.targets:
            if not target.named:
                raise PlanError("A target names no value; write for example benevolence=+1.")
        for name in ("prompts", "max_new_tokens", "batch_size", "dose_prompts"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("neutral", "temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                raise PlanError(f"{name} must be 0 or more, got {getattr(self, name)}.")
        for doses in (self.doses, *(m.doses for m in self.methods if m.doses is not None)):
            wrong = [dose for dose in doses if dose is not None and not 0 < dose < math.inf]
            if wrong or not doses:
                raise PlanError(
                    "A dose is a positive number of nats, for example 0.5, or `fitted`; got "
                    f"{wrong or 'none'}."
                )
        if not self.seeds:
            raise PlanError("A plan needs a seed, for example 0.")
        for what, named in (
            ("method", [method.label for method in self.methods]),
            ("target", [str(target) for target in self.targets]),
            ("dose", list(self.doses)),
            *(("dose", list(m.doses)) for m in self.methods if m.doses is not None),
            ("seed", list(self.seeds)),
        ):
            twice = [name for name in named if named.count(name) > 1]
            if twice:
                raise PlanError(f"The {what} {twice[0]} stands twice in the plan; give it once.")

    def doses_of(self, method: MethodChoice) -> tuple[float | None, ...]:
        """The doses a method is measured at; None is the control as fitted.

        A method without strength knows nothing else.
        """
        if not method_class(method.name).has_strength:
            return (None,)
        return self.doses if method.doses is None else method.doses
