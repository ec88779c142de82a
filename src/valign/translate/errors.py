"""What can go wrong with a translator."""

from __future__ import annotations

from valign.values import ValignError


class TranslatorError(ValignError, ValueError):
    """A translator that cannot be found or read, or an instruction it cannot take."""


class TranslatorWarning(UserWarning):
    """Something about a translation that its user should know."""
