"""Rewrite controls: the host answers, then a rewriter changes what its answer expresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from valign.control.control import Control, Kind
from valign.control.edit import EditError

HOST = "host"
"""The rewriter that is the host model itself, asked in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RewriteControl(Control):
    """A control that acts on the finished answer; the host model is never touched.

    The values named in the target are brought to its numbers, all others stay as they are in the
    answer. How it is carried out is `valign.lm.rewriting`.

    Attributes:
        template: jinja text of the request; sees `source`, `prompt` and `changes` (name, title,
            definition, now, wanted, level).
        rewriter: folder or Hub name of the model that rewrites, or `host`.
        steps: grid steps from 0 to 1; `level` is the wanted score in these steps.
        max_new_tokens: longest rewrite.
    """

    kind: ClassVar[Kind] = "text"
    template: str
    rewriter: str = HOST
    steps: int = 2
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if "source" not in self.template:
            raise EditError("The template of a rewrite names no {{ source }} to rewrite.")
        for name in ("steps", "max_new_tokens"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise EditError(f"{name}={getattr(self, name)!r}: expected a whole number >= 1.")

    def scaled(self, strength: float) -> RewriteControl:
        if strength == 1.0:
            return self
        raise EditError(
            "A rewrite has no strength: it is asked for certain scores. State them in the target, "
            "for example benevolence=+0.5."
        )


SETTINGS = ("template", "rewriter", "steps", "max_new_tokens")
"""What goes into a file's header."""
