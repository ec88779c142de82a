"""An instruction in a person's words -> a shift over the values, with a confidence."""

from valign.translate.errors import TranslatorError, TranslatorWarning
from valign.translate.rules import RuleTranslator
from valign.translate.translator import Translator
from valign.translate.types import Translation, ValueShift

__all__ = [
    "RuleTranslator",
    "Translation",
    "Translator",
    "TranslatorError",
    "TranslatorWarning",
    "ValueShift",
]
