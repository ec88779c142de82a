"""Errors about values; each says what was wrong, what was expected, and what to type next."""

from __future__ import annotations

from collections.abc import Sequence


class ValignError(Exception):
    """Base of every error valign raises on purpose; the command line prints it without a trace."""


class UnknownValueError(ValignError, KeyError):
    """A value name that the system does not hold."""

    def __init__(self, name: str, system: str, near: Sequence[str]):
        self.name, self.system, self.near = name, system, tuple(near)
        super().__init__(
            f"{system} has no value {name!r}. Nearest: {', '.join(near)}. "
            f"`valign values {system}` lists them all."
        )

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class SystemFileError(ValignError, ValueError):
    """A value system's file that does not have the expected shape."""


class NoCircleError(ValignError, ValueError):
    """Circle geometry was asked of a system whose values have no angles."""


class ConversionError(ValignError, ValueError):
    """Scores that cannot be carried from one value system to another."""


class ProfileError(ValignError, ValueError):
    """A profile that cannot be read, or that does not fit its system."""
