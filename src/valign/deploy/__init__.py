"""Controls leave the house: exports with certificates, the Hub, and serving with vLLM."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_WHERE = {
    "NAMES": "exporting",
    "Bank": "bundle",
    "Bundle": "bundle",
    "Certificate": "certificate",
    "CertificateError": "errors",
    "ExportError": "errors",
    "HubError": "errors",
    "export": "exporting",
    "from_pretrained": "hub",
    "push_to_hub": "hub",
    "read_bundle": "bundle",
    "save_pretrained": "hub",
}
"""Public name -> module, imported when first asked for: an engine that loads the plug-in below
this package needs none of the exporters."""

__all__ = [
    "NAMES",
    "Bank",
    "Bundle",
    "Certificate",
    "CertificateError",
    "ExportError",
    "HubError",
    "export",
    "from_pretrained",
    "push_to_hub",
    "read_bundle",
    "save_pretrained",
]

if TYPE_CHECKING:
    from valign.deploy.bundle import Bank, Bundle, read_bundle
    from valign.deploy.certificate import Certificate
    from valign.deploy.errors import CertificateError, ExportError, HubError
    from valign.deploy.exporting import NAMES, export
    from valign.deploy.hub import from_pretrained, push_to_hub, save_pretrained


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
