"""Rewards that a front is searched by, other than the scores of its battery's judge.

    RewardModel      a sequence classifier with one logit: prompt and answer in, a number out
    RewardModels     one of them for each objective

A reward is kept raw. Its unit is its model's own: it has no zero, no ends, and says nothing beside
the reward of another model. Fronts, choices and gains over the plain model do not depend on unit
and zero; a hypervolume is counted in the product of the units.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from valign.corpora.types import Corpus, Message
from valign.lm.render import Prompt, Verbatim
from valign.study.battery import Ask, Judgement, TextBattery
from valign.values import ValignError, ValueSystem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RewardError(ValignError, ValueError):
    """A reward that cannot be had, or not of this answer."""


class Reward(Protocol):
    """Prompts and answers in, one number for each objective out; more is better.

    Attributes:
        name: who gives it, with versions; stands in every result.
        unit: what one more means, in words.
        objectives: the columns of `score`.
    """

    name: str
    unit: str
    objectives: tuple[str, ...]

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Raw rewards of shape (n, objectives)."""
        ...


class RewardModel:
    """A sequence classifier with one logit, as published for training with human feedback.

    Prompt and answer go through the tokenizer's chat template. A tokenizer without one gets them
    as a pair of texts if it has a separator, and as two paragraphs if not. Nothing is truncated.
    Rows are batched by length; in float32 the batch moves a reward by rounding only.

    Args:
        model, tokenizer: of one checkpoint.
        name: folder or Hub name, for results.
        batch_size: rows at a time. A model that names no padding token reads them one by one:
            with padding it would read another token than its authors did.

    Raises:
        RewardError: more labels than one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        batch_size: int = 16,
    ):
        from valign.lm.host import weights_digest

        _check_labels(model.config, name)
        self.name = f"{name}@{weights_digest(model)}"
        self._model, self._tokenizer = model.eval(), tokenizer
        # Tokenizers offer segment numbers also to models that know none.
        self._inputs = frozenset(inspect.signature(model.forward).parameters)
        self._pad = model.config.get_text_config().pad_token_id
        self._batch_size = 1 if self._pad is None else batch_size

    @classmethod
    def load(
        cls, name_or_path: str | Path, *, trust_remote_code: bool = False, batch_size: int = 16
    ) -> RewardModel:
        """A reward model by Hub name or folder; on a GPU if there is one.

        Args:
            name_or_path: what `from_pretrained` takes.
            trust_remote_code: run code that comes with the checkpoint; off unless asked.

        Raises:
            RewardError: nothing there, unreadable, without a trained head, or more labels than
                one.
        """
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        source = str(name_or_path)
        if source.startswith("~"):
            source = str(Path(source).expanduser())
        folder = Path(source)
        if source.startswith((".", "/")) and not folder.exists():
            raise RewardError(f"No such folder of a reward model: {source}")
        if folder.exists() and not (folder / "config.json").is_file():
            raise RewardError(
                f"{source} holds no reward model: it has no config.json. Expected a folder written "
                "by save_pretrained."
            )
        gpu = torch.cuda.is_available()
        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
            _check_labels(config, source)
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
            model, report = AutoModelForSequenceClassification.from_pretrained(
                source,
                config=config,
                dtype="auto" if gpu else torch.float32,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        except RewardError:
            raise
        except Exception as error:  # transformers raises many kinds; all mean the same here
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RewardError(
                f"Cannot load the reward model {source!r}: {type(error).__name__}: {said}\n"
                "Expected a folder of a sequence classifier (config.json, *.safetensors, "
                "tokenizer), or a Hub name and a connection to the Hub. One that comes with code "
                "of its own needs --trust-remote-code."
            ) from error
        if report["missing_keys"]:
            raise RewardError(
                f"{source} lacks weights, among them {sorted(report['missing_keys'])[0]}; they "
                "would be random, and so would be the reward. Expected the checkpoint of a whole "
                "reward model."
            )
        return cls(
            model.to("cuda" if gpu else "cpu"), tokenizer, name=source, batch_size=batch_size
        )

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Raw rewards, shape (n,).

        Raises:
            RewardError: prompt and answer are longer than the model reads, or a reward is not
                finite.
        """
        import torch

        rows = [self._encode(p, a) for p, a in zip(prompts, answers, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        found = np.zeros(len(rows))
        with torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                part = order[start : start + self._batch_size]
                batch = self._padded([rows[i] for i in part])
                given = {k: torch.tensor(v, device=self._model.device) for k, v in batch.items()}
                found[part] = self._model(**given).logits[:, 0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise RewardError(
                f"{self.name} gives {(~np.isfinite(found)).sum()} of {len(found)} answers no "
                "finite reward: the checkpoint is broken or its number type too narrow. Take "
                "another model."
            )
        return found

    def _encode(self, prompt: Prompt, answer: str) -> dict[str, list[int]]:
        tokenizer, turns = self._tokenizer, _turns(prompt)
        if tokenizer.chat_template is not None:
            said = [*turns, {"role": "assistant", "content": answer}]
            text = tokenizer.apply_chat_template(said, tokenize=False)
            row = tokenizer(text, add_special_tokens=False)
        else:
            asked = "\n\n".join(turn["content"] for turn in turns)
            paired = tokenizer.sep_token is not None
            row = tokenizer(asked, answer) if paired else tokenizer(f"{asked}\n{answer}")
        if len(row["input_ids"]) > self._limit:
            raise RewardError(
                f"Prompt and answer have {len(row['input_ids'])} tokens and {self.name} reads "
                f"{self._limit}. Make answers shorter with --max-new-tokens, or take a reward "
                "model with a longer context."
            )
        return {key: row[key] for key in row if key in self._inputs}

    @property
    def _limit(self) -> int:
        positions = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return min(positions or self._tokenizer.model_max_length, self._tokenizer.model_max_length)

    def _padded(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, list[list[int]]]:
        width = max(len(row["input_ids"]) for row in rows)
        return {
            key: [
                row[key] + [self._pad if key == "input_ids" else 0] * (width - len(row[key]))
                for row in rows
            ]
            for key in rows[0]
        }


class RewardModels:
    """A reward model for each objective.

    Args:
        models: objective -> its model, in the order of the columns.
    """

    unit = "the logit of each value's own reward model"

    def __init__(self, models: Mapping[str, RewardModel]):
        self._models = dict(models)
        self.objectives = tuple(self._models)
        self.name = ", ".join(f"{value}={m.name}" for value, m in self._models.items())

    @classmethod
    def load(
        cls,
        named: Mapping[str, str],
        objectives: Sequence[str],
        *,
        trust_remote_code: bool = False,
    ) -> RewardModels:
        """The models of a front.

        Args:
            named: objective -> Hub name or folder.
            objectives: the values of the front, each of which needs a model: a mixture that is
                better by one judge and worse by another is neither.

        Raises:
            RewardError: a value that is no objective, an objective without a model, or what
                `RewardModel.load` refuses.
        """
        among = ", ".join(objectives)
        for value in named:
            if value not in objectives:
                raise RewardError(f"{value} is none of the front's values; those are {among}.")
        for value in objectives:
            if value not in named:
                raise RewardError(
                    f"{value} has no reward model; a front needs one for each of {among}. "
                    f"Add --reward {value}=PATH, or leave --reward out to go by the detector."
                )
        return cls(
            {v: RewardModel.load(named[v], trust_remote_code=trust_remote_code) for v in objectives}
        )

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> np.ndarray:
        """Raw rewards of shape (n, objectives)."""
        return np.column_stack([m.score(prompts, answers) for m in self._models.values()])


class UnreadBattery(TextBattery):
    """Prompts of a corpus for whose values there is no detector: only a reward reads the answers.

    Args:
        corpus: of any value system.
    """

    def __init__(self, corpus: Corpus):
        super().__init__(corpus, _Nobody(corpus.system))

    def read(self, asks: Sequence[Ask], answers: Sequence[str]) -> list[Judgement]:
        """Fluency, and no scores."""
        return [replace(found, scores={}) for found in super().read(asks, answers)]


class _Nobody:
    """What `UnreadBattery` stands on; its zeros are thrown away."""

    name = "nobody"

    def __init__(self, system: ValueSystem):
        self.system = system

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        return np.zeros((len(texts), len(self.system)))


def _check_labels(config: Any, name: str) -> None:
    if config.num_labels != 1:
        labels = ", ".join(map(str, config.id2label.values()))
        raise RewardError(
            f"{name} has {config.num_labels} labels ({labels}); a reward model is a sequence "
            "classifier with one, its reward. Name such a model for each value."
        )


def _turns(prompt: Prompt) -> list[Message]:
    if isinstance(prompt, Verbatim):
        raise RewardError("A reward is that of an answer to a question; bare tokens ask none.")
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return list(prompt)
