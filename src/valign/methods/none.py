"""The plain model: the row every other method is compared with."""

from __future__ import annotations

from typing import ClassVar

from valign.control import TextControl
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.values import Profile


class NoChange(Method):
    """An instruction of no words: prompts and forward pass stay as they are.

    Run with another sampling seed than the baseline it shows how much of a measured shift is
    noise. It has no strength, so no dose can be set on it.
    """

    name: ClassVar[str] = "none"
    has_strength: ClassVar[bool] = False

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> TextControl:
        return TextControl(target=target, instruction="")
