"""What can go wrong when a control leaves the house; each message names what would work."""

from __future__ import annotations

from valign.values import ValignError


class ExportError(ValignError, ValueError):
    """A control that a format cannot hold exactly, or a folder that cannot be written."""


class CertificateError(ValignError, RuntimeError):
    """An export whose files do not do what the control does; nothing is written."""


class HubError(ValignError, RuntimeError):
    """A control on the Hub, or in a folder like one, that cannot be fetched or trusted."""
