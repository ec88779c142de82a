"""What a translation is: a shift over the values, and how sure the translator is of it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from valign.values import Profile, ValueSystem


@dataclass(frozen=True, eq=False)
class ValueShift(Mapping[str, float]):
    """A mapping value -> change in [-1, 1] that holds only the values to change.

    Empty, and false, where nothing about values was asked. A value that is not to change reads 0;
    a name that the system does not hold raises `UnknownValueError`. Equal to any mapping with the
    same items.

    Attributes:
        profile: the shift as a profile, to be added to another one: `original + shift.profile`.
        source: who said so, with its version: `english-1`, `rules-1`, `llm:MODEL@PROMPT-VERSION`.
    """

    profile: Profile
    source: str = ""

    @classmethod
    def of(
        cls, system: ValueSystem, changes: Mapping[str, float] | None = None, *, source: str = ""
    ) -> ValueShift:
        """A shift from the values that change."""
        return cls(Profile.from_mapping(system, changes or {}), source)

    @property
    def system(self) -> ValueSystem:
        """The values it speaks of."""
        return self.profile.system

    @property
    def array(self) -> np.ndarray:
        """All changes in the system's order, shape (n_values,)."""
        return self.profile.array

    def __getitem__(self, name: str) -> float:
        return self.profile[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.profile.named)

    def __len__(self) -> int:
        return len(self.profile.named)

    def __contains__(self, name: object) -> bool:
        return name in self.profile.named

    def __hash__(self) -> int:
        return hash(self.profile)

    def __repr__(self) -> str:
        return f"ValueShift({self.profile.named!r})"

    def __str__(self) -> str:
        return str(self.profile)


class Translation(NamedTuple):
    """A shift and its confidence: a pair that also reads like its shift.

        shift, confidence = translator.translate("warmer, less about status")

        found = translator.translate("warmer, less about status")
        found["power"], found.items(), dict(found), found.confidence
        if not found: ...  # nothing about values was asked

    As with any pair, iterating gives the shift and the confidence; iterate over `.shift` or
    `.items()` for the values.

    Attributes:
        shift: the mapping value -> change, empty where nothing about values was asked.
        confidence: in [0, 1]. For the trained model the calibrated chance that every sign is right.
    """

    shift: ValueShift
    confidence: float

    def __getitem__(self, key: Any) -> Any:
        return self.shift[key] if isinstance(key, str) else tuple.__getitem__(self, key)

    def __bool__(self) -> bool:
        return bool(self.shift)

    def __repr__(self) -> str:
        return f"Translation({self.shift.profile.named!r}, confidence={self.confidence:.2f})"

    @property
    def source(self) -> str:
        """Which translator said so, with its version."""
        return self.shift.source

    @property
    def profile(self) -> Profile:
        """The shift as a profile."""
        return self.shift.profile

    @property
    def array(self) -> np.ndarray:
        """The shift as an array of shape (n_values,)."""
        return self.shift.array

    def get(self, name: str, default: float = 0.0) -> float:
        """The change of a value, `default` for a name the system does not hold."""
        return self.shift.get(name, default)

    def keys(self) -> KeysView[str]:
        """The values that change."""
        return self.shift.keys()

    def values(self) -> ValuesView[float]:
        """The changes of the values that change."""
        return self.shift.values()

    def items(self) -> ItemsView[str, float]:
        """The values that change with their changes."""
        return self.shift.items()


@runtime_checkable
class Backend(Protocol):
    """What turns instructions into shifts: rules, the trained model, or a language model.

    Attributes:
        name: short name with version; stands in every translation.
        system: the values it speaks of.
    """

    name: str
    system: ValueSystem

    def translate_all(self, instructions: Sequence[str]) -> list[Translation]:
        """One translation an instruction; a blank one gives the empty shift."""
        ...
