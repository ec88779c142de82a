"""What can go wrong with detectors; each error says what to type next."""

from __future__ import annotations

from valign.values import ValignError


class DetectorError(ValignError, ValueError):
    """A detector that cannot be found, read, or used with the values asked for."""


class MissingEncoderError(DetectorError):
    """The sentence encoder that a detector stands on is not installed."""
