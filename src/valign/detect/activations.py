"""Activations below the tuned layers, computed once and kept on disk.

They make an epoch of tuning the upper layers several times cheaper, and an interrupted run
continues with what it has.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from valign.detect.backbone import Backbone, length_batches

_CHUNK = 512


class Activations(Sequence[np.ndarray]):
    """Token vectors of every text after the lowest `layers` layers.

    Item i is a float16 array of shape (T_i, width), read from disk on demand.
    """

    def __init__(self, chunks: list[np.ndarray], offsets: list[np.ndarray]):
        self._chunks, self._offsets = chunks, offsets

    def __len__(self) -> int:
        return sum(len(offsets) - 1 for offsets in self._offsets)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        chunk, place = divmod(index, _CHUNK)
        start, stop = self._offsets[chunk][place : place + 2]
        return self._chunks[chunk][start:stop]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, shape (n,)."""
        return np.concatenate([np.diff(offsets) for offsets in self._offsets])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Token vectors (B, T, width) in float32 and their mask (B, T)."""
        rows = [self[i] for i in indices]
        longest = max(len(row) for row in rows)
        hidden = torch.zeros(len(rows), longest, rows[0].shape[1])
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            hidden[i, : len(row)] = torch.from_numpy(row.astype(np.float32))
            mask[i, : len(row)] = True
        return hidden, mask


def cached_activations(
    backbone: Backbone, texts: Sequence[str], folder: Path, *, layers: int, max_tokens: int
) -> Activations:
    """Compute what is not yet on disk, 512 texts a file, and return all.

    Each file is named by a hash of the encoder's name, the settings and its texts, and appears
    only when it is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks, offsets = [], []
    for start in range(0, len(texts), _CHUNK):
        part = list(texts[start : start + _CHUNK])
        key = hashlib.sha256(repr((backbone.name, layers, max_tokens, part)).encode()).hexdigest()
        rows = backbone.tokenize(part, max_tokens=max_tokens)
        own = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        path = folder / f"{key[:24]}.npy"
        if not path.is_file():
            unfinished = path.with_suffix(".tmp")
            with open(unfinished, "wb") as file:
                np.save(file, _forward(backbone, rows, own, layers))
            os.replace(unfinished, path)
        chunks.append(np.load(path, mmap_mode="r"))
        offsets.append(own)
    return Activations(chunks, offsets)


@torch.inference_mode()
def _forward(
    backbone: Backbone, rows: list[list[int]], offsets: np.ndarray, layers: int
) -> np.ndarray:
    out = np.zeros((offsets[-1], backbone.width), np.float16)
    for batch in length_batches([len(row) for row in rows]):
        hidden = backbone.lower(*backbone.pad([rows[i] for i in batch]), upto=layers)
        for place, i in enumerate(batch):
            out[offsets[i] : offsets[i + 1]] = hidden[place, : len(rows[i])].half().numpy()
    return out
