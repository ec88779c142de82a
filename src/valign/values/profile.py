"""Profiles: how much of each value is wanted or found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from valign.values.errors import ProfileError
from valign.values.system import ValueSystem

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"^\s*(?P<name>[^=\s]+)\s*(?:=\s*(?P<score>{_NUMBER}))?\s*$")


@dataclass(frozen=True)
class Profile(Mapping[str, float]):
    """A mapping value -> number in [-1, 1]; values that are not named are 0.

    Attributes:
        system: the value system that orders `scores`.
        scores: one number per value, in the system's order.
    """

    system: ValueSystem
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.scores) != len(self.system):
            raise ProfileError(
                f"A profile over {self.system.name} needs {len(self.system)} scores, "
                f"got {len(self.scores)}."
            )
        for name, score in zip(self.system.names, self.scores, strict=True):
            if not -1 <= score <= 1:  # also refuses NaN
                raise ProfileError(
                    f"{name}={score} is outside [-1, 1]. Profiles say how much of a value is "
                    "wanted; how hard to push is the dose."
                )

    @classmethod
    def of(cls, system: ValueSystem, **scores: float) -> Profile:
        """A profile from keywords; write `self_direction` for `self-direction`."""
        return cls.from_mapping(system, {k.replace("_", "-"): v for k, v in scores.items()})

    @classmethod
    def from_mapping(cls, system: ValueSystem, scores: Mapping[str, float]) -> Profile:
        """A profile from a mapping; unnamed values are 0.

        Raises:
            UnknownValueError: a name the system does not hold.
            ProfileError: a number outside [-1, 1].
        """
        dense = [0.0] * len(system)
        for name, score in scores.items():
            dense[system.index(name)] = float(score)
        return cls(system, tuple(dense))

    @classmethod
    def from_array(cls, system: ValueSystem, scores: np.ndarray) -> Profile:
        """A profile from an array of shape (n_values,).

        Raises:
            ProfileError: another shape, or a number outside [-1, 1].
        """
        scores = np.asarray(scores, dtype=float)
        if scores.shape != (len(system),):
            raise ProfileError(
                f"A profile over {system.name} is an array of shape ({len(system)},), "
                f"got {scores.shape}."
            )
        return cls(system, tuple(scores.tolist()))

    @classmethod
    def parse(cls, text: str, system: ValueSystem) -> Profile:
        """Read `benevolence=+1,power=-0.5`; a bare name means +1, an empty text means no values.

        Raises:
            ProfileError: a part that is not `name` or `name=number`, or a name given twice.
            UnknownValueError: a name the system does not hold.
        """
        found: dict[str, float] = {}
        for part in filter(str.strip, text.split(",")):
            match = _TERM.match(part)
            if match is None:
                raise ProfileError(
                    f"Cannot read {part.strip()!r} in the profile {text!r}. "
                    "Write for example benevolence=+1,power=-0.5"
                )
            name = match["name"]
            system.index(name)
            if name in found:
                raise ProfileError(f"{name} stands twice in the profile {text!r}; name it once.")
            found[name] = float(match["score"] or 1.0)
        return cls.from_mapping(system, found)

    def __getitem__(self, name: str) -> float:
        return self.scores[self.system.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.system.names)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def array(self) -> np.ndarray:
        """The scores as an array of shape (n_values,)."""
        return np.array(self.scores)

    @property
    def named(self) -> dict[str, float]:
        """Only the values whose score is not 0."""
        return {name: s for name, s in zip(self.system.names, self.scores, strict=True) if s}

    def __add__(self, other: Profile) -> Profile:
        """Sum, clipped to [-1, 1]; `-` and `*` clip in the same way."""
        return self._combine(other, 1.0)

    def __sub__(self, other: Profile) -> Profile:
        return self._combine(other, -1.0)

    def __mul__(self, factor: float) -> Profile:
        return Profile.from_array(self.system, np.clip(self.array * factor, -1, 1))

    __rmul__ = __mul__

    def __neg__(self) -> Profile:
        return self * -1.0

    def _combine(self, other: Profile, sign: float) -> Profile:
        if other.system != self.system:
            raise ProfileError(
                f"Cannot combine a profile over {self.system.name} with one over "
                f"{other.system.name}."
            )
        return Profile.from_array(self.system, np.clip(self.array + sign * other.array, -1, 1))

    def __repr__(self) -> str:
        return f"Profile({str(self)!r}, {self.system.name})"

    def __str__(self) -> str:
        return ",".join(
            f"{name}={score:+}".removesuffix(".0") for name, score in self.named.items()
        )
