"""What can go wrong between a control and a model; each message names what would work."""

from __future__ import annotations

from valign.values import ValignError


class ModelLoadError(ValignError):
    """A model that is not there, cannot be read, or holds numbers that are not finite."""


class LayoutError(ValignError):
    """A model whose parts were not found."""


class UnsupportedSiteError(ValignError):
    """A site the model's family does not have, or an edit the engine cannot run there."""


class PromptTooLongError(ValignError, ValueError):
    """A prompt that leaves no room in the model's context."""


class NotAppliedError(ValignError, RuntimeError):
    """A control that was asked for and did not fire: nothing may run silently unsteered."""


class NestedControlError(ValignError, RuntimeError):
    """A control inside the `with` block of another one on the same model."""


class DoseError(ValignError, ValueError):
    """A dose that cannot be reached."""
