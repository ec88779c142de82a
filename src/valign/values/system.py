"""Value systems: ordered sets of named human values, read from data files.

A system is data, not code. `schwartz10.yaml` and its siblings in `systems/` are the
bundled ones; a user's own file has the same shape (see `load_system`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valign.values.errors import NoCircleError, UnknownValueError

Relation = Literal["self", "in-group", "adjacent", "opposite", "unrelated"]


@dataclass(frozen=True)
class Value:
    """A named human value with a definition; never a state value or a tensor."""

    name: str
    title: str
    definition: str
    group: str | None = None
    angle: float | None = None
    """Place on the system's circle in degrees, or None where the system has no circle."""
    keywords: tuple[str, ...] = ()
    worth: Literal[-1, 1] = 1
    """-1 where the value names a harm: a rise is a loss."""


@dataclass(frozen=True)
class ValueSystem:
    """An ordered set of values with structure: who is next to whom, the groups, the opposites.

    Attributes:
        name: short name, as typed on the command line.
        values: the values in circle order; every array of the library is indexed this way.
        opposite_groups: pairs of group names that lie opposite each other.
        also_in: second group memberships, value -> groups (hedonism lies between two); they count
            only where `shared=True` is asked for.
    """

    name: str
    title: str
    source: str
    values: tuple[Value, ...]
    group_titles: tuple[tuple[str, str], ...] = ()
    opposite_groups: tuple[tuple[str, str], ...] = ()
    also_in: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __repr__(self) -> str:
        return f"ValueSystem({self.name!r}, {len(self)} values)"

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Value]:
        return iter(self.values)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Value:
        return self.values[self.index(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """Value names in order, the index of every array of shape (n_values,)."""
        return tuple(value.name for value in self.values)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group name -> the values at home in it, in circle order; every value stands once."""
        found: dict[str, list[str]] = {}
        for value in self.values:
            if value.group is not None:
                found.setdefault(value.group, []).append(value.name)
        return {group: tuple(members) for group, members in found.items()}

    def index(self, name: str) -> int:
        """Position of a value.

        Raises:
            UnknownValueError: no value of that name; the message names the nearest ones.
        """
        try:
            return self.names.index(name)
        except ValueError:
            asked = name.lower()
            near = difflib.get_close_matches(asked, self.names, n=3, cutoff=0.5)
            by_word = [v.name for v in self.values if asked in v.keywords and v.name not in near]
            raise UnknownValueError(name, self.name, by_word + near or self.names) from None

    def groups_of(self, name: str, *, shared: bool = False) -> tuple[str, ...]:
        """The value's home group (none where the system has no groups).

        With `shared`, also the groups it borders on (`also_in`).
        """
        value = self[name]
        own = () if value.group is None else (value.group,)
        return own + (dict(self.also_in).get(name, ()) if shared else ())

    def relation(self, a: str, b: str, *, shared: bool = False) -> Relation:
        """How value `b` lies to value `a` in the theory; symmetric in `a` and `b`.

        `in-group` if they share a group, else `opposite` if a group of one faces a group of the
        other, else `adjacent` on a circle (its four groups leave no third case), else `unrelated`.

        Papers differ on hedonism's side, and every group metric follows: by default only home
        groups count (hedonism in openness); `shared=True` counts both groups of a border value.
        """
        if self.index(a) == self.index(b):
            return "self"
        mine = set(self.groups_of(a, shared=shared))
        theirs = set(self.groups_of(b, shared=shared))
        if mine & theirs:
            return "in-group"
        facing = {frozenset(pair) for pair in self.opposite_groups}
        if any(frozenset((x, y)) in facing for x in mine for y in theirs):
            return "opposite"
        return "adjacent" if mine and theirs and self.has_circle else "unrelated"

    @property
    def has_circle(self) -> bool:
        """Whether every value has a place on a circle."""
        return all(value.angle is not None for value in self.values)

    def angles(self) -> np.ndarray:
        """Circle angles in degrees, shape (n_values,).

        Raises:
            NoCircleError: the system has no circle.
        """
        if not self.has_circle:
            raise NoCircleError(
                f"{self.name} has no circle: its values have no angles. "
                "schwartz10, schwartz19 and higher-order4 have one."
            )
        return np.array([value.angle for value in self.values], dtype=float)

    def distance(self) -> np.ndarray:
        """Angular distance on the circle in degrees, shape (n_values, n_values), 0 to 180."""
        angles = self.angles()
        gap = np.abs(angles[:, None] - angles[None, :]) % 360
        return np.minimum(gap, 360 - gap)

    def similarity(self) -> np.ndarray:
        """Similarity the circle predicts, cos(theta_i - theta_j), shape (n_values, n_values)."""
        return np.cos(np.deg2rad(self.distance()))
