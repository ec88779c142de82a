"""A random direction of the same norm: what any push of that size does."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import field_validator

from valign.control import Edit, EditsControl
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.registry import get_method
from valign.values import Profile


class RandomDirection(Method):
    """Another method's edits with their moves turned at random.

    Sites, coordinates, norm, gate and the moments of acting are those of the reference method;
    only where the move points is drawn: c -> |c| u for `add`, each row of `direction` likewise for
    `push`, with u uniform on the sphere over the coordinates the reference moves.

    A random direction still has a small part along the reference's own. `orthogonal` takes it off:
    directions at a right angle to a vector can do nearly what it does (arXiv 2602.06801), and where
    they do, the effect is not that vector's.

    Every table needs it: a gain that a random direction of the same dose also has is no control.
    """

    name: ClassVar[str] = "random"

    reference: str = "caa"
    """The method whose edits are turned, with its default settings."""
    orthogonal: bool = False
    """Draw at a right angle to the reference's own move, of the same norm."""
    seed: int = 0
    """Of the directions."""

    @field_validator("reference")
    @classmethod
    def _not_itself(cls, reference: str) -> str:
        if reference == cls.name:
            raise ValueError("the reference must be another method, for example caa")
        return reference

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        control = get_method(self.reference).fit(lm, corpus, target)
        if not isinstance(control, EditsControl) or not control.edits:
            raise FitError(
                f"random: {self.reference} makes no edits whose direction could be drawn. "
                "Take a reference such as caa, conva or neva."
            )
        edits = tuple(self._turned(edit, target) for edit in control.edits)
        return replace(control, edits=edits, provenance={})

    def _turned(self, edit: Edit, target: Profile) -> Edit:
        which = {"add": "vector", "push": "direction"}.get(edit.kind)
        if which is None:
            raise MethodSettingError(
                f"random: {self.reference} makes {edit.kind} edits; only add and push have a "
                "direction to draw."
            )
        vector = edit.tensors[which]
        key = zlib.crc32(f"{self.seed}|{edit.site}|{target}".encode())
        noise = torch.randn(vector.shape, generator=torch.Generator().manual_seed(key))
        noise = noise * (vector != 0)
        if self.orthogonal:
            own = torch.nn.functional.normalize(vector.float(), dim=-1)
            for _ in range(2):  # once more takes off what rounding left
                noise = noise - (noise * own).sum(-1, keepdim=True) * own
            if (noise.norm(dim=-1) < 1e-3)[vector.norm(dim=-1) > 0].any():
                raise FitError(
                    f"random: {self.reference} moves one coordinate at {edit.site}, to which "
                    "nothing is orthogonal. Leave orthogonal out, or let it move more of them."
                )
        drawn = noise / noise.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        turned = drawn * vector.norm(dim=-1, keepdim=True)
        return replace(edit, tensors={**edit.tensors, which: turned.to(vector)})
