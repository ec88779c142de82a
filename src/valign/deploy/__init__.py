"""Controls leave the house: exports with certificates, and the Hub."""

from valign.deploy.bundle import Bank, Bundle, read_bundle
from valign.deploy.certificate import Certificate
from valign.deploy.errors import CertificateError, ExportError, HubError
from valign.deploy.export import NAMES, export
from valign.deploy.hub import from_pretrained, push_to_hub, save_pretrained

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
