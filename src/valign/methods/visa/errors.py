"""What can go wrong when rewriting."""

from __future__ import annotations

from valign.values import ValignError


class RewriteError(ValignError, ValueError):
    """A rewrite that was asked for wrongly, or training material that does not fit."""
