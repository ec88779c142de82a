"""VISA: the host answers as it is; a separate rewriter changes what the answer expresses."""

from valign.methods.visa.method import VISA

__all__ = ["VISA"]
