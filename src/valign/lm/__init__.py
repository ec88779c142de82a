"""The host model: any Hugging Face causal LM, read and steered through hooks, never changed."""

from valign.lm.capture import capture, site_gradients
from valign.lm.dose import Dose, DoseMeter
from valign.lm.errors import (
    DoseError,
    LayoutError,
    ModelLoadError,
    NestedControlError,
    NotAppliedError,
    PromptTooLongError,
    UnsupportedSiteError,
)
from valign.lm.generate import Generation, generate, stream
from valign.lm.host import HostModel
from valign.lm.layout import Layout, LayoutNames
from valign.lm.receipt import Receipt
from valign.lm.score import token_kl, token_logprobs

__all__ = [
    "Dose",
    "DoseError",
    "DoseMeter",
    "Generation",
    "HostModel",
    "Layout",
    "LayoutError",
    "LayoutNames",
    "ModelLoadError",
    "NestedControlError",
    "NotAppliedError",
    "PromptTooLongError",
    "Receipt",
    "UnsupportedSiteError",
    "capture",
    "generate",
    "site_gradients",
    "stream",
    "token_kl",
    "token_logprobs",
]
