"""Controls: what a fitted method is, a thing that changes what a model expresses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from valign.control.edit import Edit, Gate
from valign.values import Profile

Kind = Literal["text", "edits", "bridge", "weights"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Control(ABC):
    """A fitted method: the only thing that passes between methods and engines.

    Attributes:
        target: the profile it was made to bring about; carries the value system.
        provenance: how it was made: method, its settings, corpus fingerprint, model name and
            hash, seed, versions, and the dose once it has been set. JSON-able.
    """

    kind: ClassVar[Kind]
    target: Profile
    provenance: dict[str, Any] = field(default_factory=dict)

    @abstractmethod
    def scaled(self, strength: float) -> Self:
        """The same control, `strength` times as strong (text controls refuse)."""

    def ungated(self) -> Self:
        """The same control, acting on every prompt; itself where it has no gate."""
        return self

    def save(self, path: str | Path) -> Path:
        """Write the control as safetensors with its settings in the header; never pickle."""
        from valign.control.saving import save

        return save(self, path)

    @property
    def method(self) -> str:
        """Name of the method that made it, `custom` if it does not say."""
        return str(self.provenance.get("method", "custom"))


@dataclass(frozen=True, kw_only=True, eq=False)
class EditsControl(Control):
    """A control made of edits, all under one optional context gate."""

    kind: ClassVar[Kind] = "edits"
    edits: tuple[Edit, ...] = ()
    gate: Gate | None = None

    def scaled(self, strength: float) -> EditsControl:
        return replace(self, edits=tuple(edit.scaled(strength) for edit in self.edits))

    def ungated(self) -> EditsControl:
        return self if self.gate is None else replace(self, gate=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class TextControl(Control):
    """A control made of words: an instruction put before the user's prompt.

    Attributes:
        instruction: goes into the system message, or before the prompt where the chat template
            has no system role.
    """

    kind: ClassVar[Kind] = "text"
    instruction: str = ""

    def scaled(self, strength: float) -> TextControl:
        from valign.control.edit import EditError

        if strength == 1.0:
            return self
        raise EditError(
            "A text control has no strength: an instruction is given or not. "
            "Measure its dose with `valign.lm.DoseMeter(lm, prompts).measure(control)`."
        )
