"""The one error of the measuring functions: arrays that do not fit together."""

from __future__ import annotations

from valign.values import ValignError


class MeasureError(ValignError, ValueError):
    """Arrays whose shapes, ranges or labels do not allow the number that was asked for."""
