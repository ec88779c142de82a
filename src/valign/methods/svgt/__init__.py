"""SVGT: an independent value module that guides a frozen model through latent bridge tokens."""

from valign.methods.svgt.method import SVGT

__all__ = ["SVGT"]
