"""Errors of methods: what was asked cannot be fitted, and what would make it possible."""

from __future__ import annotations

from valign.values import ValignError


class UnknownMethodError(ValignError, KeyError):
    """A method name that neither valign nor an installed package knows."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class MethodSettingError(ValignError, ValueError):
    """A setting the method does not have, or a value it does not take."""


class FitError(ValignError, ValueError):
    """The corpus or the target does not hold what a method needs."""
