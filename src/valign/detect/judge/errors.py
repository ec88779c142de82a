"""What can go wrong with a judge."""

from __future__ import annotations

from valign.values import ValignError


class JudgeError(ValignError, RuntimeError):
    """A judge that cannot be asked, or that gave no valid answer at all."""


class JudgeWarning(UserWarning):
    """Some rows got no valid answer and are NaN."""
