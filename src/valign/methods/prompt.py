"""The prompt baseline: ask for the value in words."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import ClassVar

import yaml
from pydantic import field_validator

from valign.control import TextControl
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.values import Profile


@cache
def wordings() -> dict[str, dict[str, str]]:
    """The bundled wordings, by name (`wordings.yaml`)."""
    text = (resources.files("valign.methods") / "wordings.yaml").read_text("utf-8")
    return yaml.safe_load(text)


class Instruction(Method):
    """An instruction before the user's prompt, one sentence per value of the target.

    Helps where the model follows instructions, and costs nothing to fit. Hurts where users can
    talk the model out of it, and it has no strength: a score's size is ignored, only its sign
    counts. `wording=conva` is the in-context baseline of ConVA (arXiv 2507.11316, from the
    authors' code); the joining of several values is ours.
    """

    name: ClassVar[str] = "prompt"
    has_strength: ClassVar[bool] = False

    wording: str = "conva"
    """Which wording of `wordings.yaml`."""

    @field_validator("wording")
    @classmethod
    def _known(cls, wording: str) -> str:
        if wording not in wordings():
            raise ValueError(f"no such wording; there are {', '.join(wordings())}")
        return wording

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> TextControl:
        words = wordings()[self.wording]
        sentences = []
        for name, score in target.named.items():
            value = target.system[name]
            sentences.append(
                words["toward" if score > 0 else "away"].format(
                    value=value.title.lower(),
                    Title=value.title,
                    definition=value.definition.rstrip(". "),
                )
            )
        return TextControl(target=target, instruction=words["join"].join(sentences))
