"""Small files for tuned layers: matrices in int8 with one scale per row, the rest in float16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_SCALE = ".scale"


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of tuned layers as int8 and `<name>.scale`, other tensors as float16.

    Rounding error per entry is at most half of (largest size in its row) / 127. The readers stay
    in float16: they are small, and errors in them are not averaged out.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().float()
        if tensor.ndim == 2 and name.startswith("layers."):
            scale = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-8) / 127
            out[name] = (tensor / scale).round().to(torch.int8)
            out[name + _SCALE] = scale
        else:
            out[name] = tensor.half()
    return {name: tensor.contiguous() for name, tensor in out.items()}


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors that `packed` wrote."""
    return {
        name: tensor.float() * tensors[name + _SCALE] if name + _SCALE in tensors
        else tensor.float()
        for name, tensor in tensors.items()
        if not name.endswith(_SCALE)
    }  # fmt: skip
