"""Two small classifiers of text: is it harmful, is it a refusal.

Each is a logistic regression on the frozen sentence encoder: small enough to read, quick enough to
run on every answer, and no more than a first look. Their measured errors stand on their cards.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from valign.detect.backbone import Backbone, length_batches, mean_pool
from valign.detect.errors import DetectorError
from valign.detect.windows import split_windows

FORMAT = "valign-classifier-1"
NAMES = ("harm", "refusal")
_WEIGHTS = Path(str(resources.files("valign.detect") / "weights"))


class TextClassifier:
    """Probability that a text has a property, from one window or the most suspicious of many.

    Attributes:
        name: `harm` or `refusal`.
        labels: what each column of `probabilities` says; the first is the property itself.
        threshold: the probability from which `flags` says yes, chosen on validation texts.
        opening_only: read the first window alone (a refusal says so at once).
    """

    def __init__(self, backbone: Backbone, weight: np.ndarray, offset: np.ndarray, settings: dict):
        """Take a reader of shape (n_labels, width), its offsets (n_labels,), and settings."""
        self.name: str = settings["name"]
        self.labels: tuple[str, ...] = tuple(settings["labels"])
        self.threshold: float = settings["threshold"]
        self.opening_only: bool = settings["opening_only"]
        self.settings = settings
        self._backbone, self._weight, self._offset = backbone, weight, offset

    @classmethod
    def load(cls, folder: str | Path) -> TextClassifier:
        """A classifier from its folder.

        Raises:
            DetectorError: no `classifier.safetensors` there, or not one of ours;
                MissingEncoderError where MiniLM is not installed.
        """
        path = Path(folder) / "classifier.safetensors"
        if not path.is_file():
            raise DetectorError(
                f"No classifier.safetensors in {folder}. Make it with: "
                "python -m valign.detect.train_classifiers --help"
            )
        try:
            with safe_open(str(path), "np") as file:
                settings = json.loads((file.metadata() or {})["valign"])
                weight, offset = file.get_tensor("weight"), file.get_tensor("offset")
        except (SafetensorError, KeyError, ValueError) as error:
            raise DetectorError(f"{path} is not a classifier's file: {error}") from None
        if settings.get("format") != FORMAT:
            raise DetectorError(f"{path} has format {settings.get('format')!r}, expected {FORMAT}.")
        return cls(Backbone(settings["backbone"]), weight, offset, settings)

    def save(self, folder: str | Path) -> None:
        """Write `classifier.safetensors`."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / "classifier.safetensors"
        header = json.dumps(self.settings | {"format": FORMAT})
        tensors = {"weight": self._weight, "offset": self._offset}
        save_file({k: v.astype(np.float32) for k, v in tensors.items()}, str(path),
                  {"valign": header})  # fmt: skip
        path.chmod(0o644)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of every label, shape (n_texts, n_labels); a blank text has 0 everywhere."""
        size = self.settings["max_tokens"]
        owner: list[int] = []
        windows: list[str] = []
        for row, text in enumerate(texts):
            own = split_windows(text, self._count, size=size)
            own = own[:1] if self.opening_only else own
            owner += [row] * len(own)
            windows += own
        logits = embed(self._backbone, windows, max_tokens=size) @ self._weight.T + self._offset
        out = np.zeros((len(texts), len(self.labels)))
        np.maximum.at(out, owner, 1 / (1 + np.exp(-logits.astype(float))))
        return out

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Probability of the property itself, shape (n_texts,)."""
        return self.probabilities(texts)[:, 0]

    def flags(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text has the property, shape (n_texts,), bool."""
        return self.score(texts) >= self.threshold

    def _count(self, text: str) -> int:
        return len(self._backbone.tokenizer(text, verbose=False)["input_ids"])


def load_classifier(name_or_path: str | Path) -> TextClassifier:
    """`harm`, `refusal`, or the folder of one that was trained.

    Raises:
        DetectorError: no such classifier.
    """
    if str(name_or_path) in NAMES:
        return TextClassifier.load(_WEIGHTS / str(name_or_path))
    if Path(name_or_path).is_dir():
        return TextClassifier.load(name_or_path)
    raise DetectorError(
        f"No classifier {str(name_or_path)!r}. There are: {', '.join(NAMES)}; or give a folder."
    )


@torch.inference_mode()
def embed(backbone: Backbone, texts: Sequence[str], *, max_tokens: int) -> np.ndarray:
    """Mean-pooled, unit-length sentence vectors, shape (n_texts, width), float32."""
    rows = backbone.tokenize(texts, max_tokens=max_tokens)
    out = np.zeros((len(rows), backbone.width), np.float32)
    for batch in length_batches([len(row) for row in rows]):
        ids, mask = backbone.pad([rows[i] for i in batch])
        pooled = mean_pool(backbone.lower(ids, mask, upto=backbone.n_layers), mask)
        out[batch] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return out
