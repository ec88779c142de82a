"""The role baseline: ask the model to be a person who holds the value."""

from __future__ import annotations

import random
from functools import cache
from importlib import resources
from typing import Any, ClassVar

import yaml

from valign.control import TextControl
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.values import Profile


@cache
def roles() -> dict[str, Any]:
    """The bundled wordings and traits (`roles.yaml`)."""
    return yaml.safe_load((resources.files("valign.methods") / "roles.yaml").read_text("utf-8"))


class Role(Method):
    """A role before the user's prompt: a person to whom the value is all, or nothing.

    Role prompts move many values at once, which is what the value causal graph (arXiv 2501.00581)
    uses them for. Its roles are random people, "Gender: x; Job: y; MBTI: z"; saying what the
    person values, and all wordings, are ours.

    Helps where a model plays roles more readily than it follows statements about itself (`prompt`).
    Hurts where the person brings more along than the value: a role has habits, a voice, opinions.
    It has no strength: a score's size is ignored, only its sign counts.
    """

    name: ClassVar[str] = "role"
    has_strength: ClassVar[bool] = False

    traits: bool = False
    """Give the person a gender, a job and a type as well, drawn by seed."""
    seed: int = 0
    """Of the traits; compare several, since a job says something about values too."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> TextControl:
        words = roles()
        sentences = [words["role"]]
        if self.traits:
            rng = random.Random(self.seed)
            drawn = {trait: rng.choice(words[trait]) for trait in ("gender", "job", "type")}
            sentences.append(words["traits"].format(**drawn))
        for name, score in target.named.items():
            value = target.system[name]
            sentences.append(
                words["toward" if score > 0 else "away"].format(
                    value=value.title.lower(),
                    Title=value.title,
                    definition=value.definition.rstrip(". "),
                )
            )
        return TextControl(target=target, instruction=" ".join(sentences))
