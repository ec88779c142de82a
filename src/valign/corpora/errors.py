"""Errors about texts: files with wrong rows, data that is not there."""

from __future__ import annotations

from valign.values import ValignError


class CorpusError(ValignError, ValueError):
    """A corpus, a file of rows or a split that is not what was expected."""


class MissingDataError(ValignError, FileNotFoundError):
    """A public data set that is not on this machine, or an extra that reading it needs."""
