"""Errors of evaluations: a file that holds no such test, or a request that has no meaning."""

from __future__ import annotations

from valign.values import ValignError


class EvalError(ValignError, ValueError):
    """A test that cannot be run; the message says why and what would do."""
