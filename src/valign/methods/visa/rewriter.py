"""The value rewriter: any causal language model, asked to bring a text's values to a target."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from valign.lm import HostModel, generate
from valign.lm.rewriting import request
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.target import STEPS
from valign.values import ValueSystem, load_system

CARD = "rewriter.json"
"""Stands beside the weights of a trained rewriter and says how it is asked."""
TEMPLATES = ("full", "world")


def template_text(name_or_path: str | Path) -> str:
    """A bundled template by name (`full`, for any model; `world`, for the reference model), or a
    jinja file of your own.

    Raises:
        RewriteError: neither.
    """
    name = str(name_or_path)
    if name in TEMPLATES:
        file = resources.files("valign.methods.visa") / "templates" / f"{name}.jinja"
        return file.read_text(encoding="utf-8")
    if Path(name).is_file():
        return Path(name).read_text(encoding="utf-8")
    raise RewriteError(
        f"No template {name!r}. There are {' and '.join(TEMPLATES)}; or give the path of a jinja "
        "file that names {{ source }} and goes over `changes`."
    )


@dataclass(frozen=True)
class Task:
    """One rewrite that is wanted.

    Attributes:
        source: the text.
        changes: value -> the score to come to; all others stay.
        now: value -> score in the source, for templates that tell it; None where not measured.
        prompt: the question the text answers.
    """

    source: str
    changes: Mapping[str, float]
    now: Mapping[str, float] | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Rewriter:
    """A model with the words it is asked in.

    Attributes:
        lm: the model, trained for this or not.
        system: the values.
        template: jinja text of the request.
        steps: grid steps from 0 to 1.
        max_new_tokens: longest rewrite.
    """

    lm: HostModel
    system: ValueSystem
    template: str
    steps: int = STEPS
    max_new_tokens: int = 256

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        *,
        template: str | None = None,
        system: str = "schwartz10",
        max_new_tokens: int | None = None,
        trust_remote_code: bool = False,
    ) -> Rewriter:
        """A trained rewriter's folder, or any model by folder or Hub name.

        Args:
            template: name or file; by default what the folder's card says, else `full`.
            system: of a model without a card.
            max_new_tokens: by default the card's, else 256.
            trust_remote_code: run code that comes with the model; off unless asked.

        Raises:
            ModelLoadError: no model there.
            RewriteError: no such template.
        """
        card = read_card(name_or_path)
        text = template_text(template) if template else card.get("template")
        return cls(
            HostModel.load(name_or_path, trust_remote_code=trust_remote_code),
            load_system(card.get("system", system)),
            text or template_text("full"),
            steps=card.get("steps", STEPS),
            max_new_tokens=max_new_tokens or card.get("max_new_tokens", 256),
        )

    @property
    def card(self) -> dict[str, str | int]:
        """What stands in `rewriter.json`."""
        return dict(
            template=self.template,
            system=self.system.name,
            steps=self.steps,
            max_new_tokens=self.max_new_tokens,
        )

    def ask(self, task: Task) -> str:
        """The words of one request."""
        return request(
            self.template, self.system, task.source, task.changes,
            now=task.now, prompt=task.prompt, steps=self.steps,
        )  # fmt: skip

    def rewrite(
        self,
        tasks: Sequence[Task],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[str]:
        """One rewrite a task, in batches; a batch's size changes no text.

        Raises:
            PromptTooLongError: a source that does not fit the model.
        """
        if not tasks:
            return []
        made = generate(
            self.lm,
            [self.ask(task) for task in tasks],
            max_new_tokens=self.max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=batch_size,
        )
        return [text.strip() for text in made.texts]


def read_card(folder: str | Path) -> dict:
    """The card of a trained rewriter; empty for other models."""
    file = Path(folder) / CARD
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_card(folder: Path, card: Mapping[str, str | int]) -> None:
    """Put a card beside a model's weights."""
    (folder / CARD).write_text(json.dumps(dict(card), indent=1) + "\n", encoding="utf-8")
