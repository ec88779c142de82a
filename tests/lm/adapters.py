"""Random adapters for the tiny models, and the slow obvious mixture: a merged copy of the model."""

from __future__ import annotations

import copy

import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from tests.lm.reference import TARGET
from valign.control import Adapter, LowRank, WeightsControl
from valign.lm import HostModel


def linear_modules(lm: HostModel) -> dict[str, tuple[int, int]]:
    """Every linear map inside the decoder blocks: name -> (outputs, inputs)."""
    found = {}
    for name, module in lm.model.named_modules():
        if name == "lm_head" or "embed" in name:
            continue
        if isinstance(module, Conv1D):
            found[name] = (module.nf, module.nx)
        elif type(module) is torch.nn.Linear:
            found[name] = (module.out_features, module.in_features)
    return found


def adapter(lm: HostModel, name: str, *, seed: int, rank: int = 2, only: str = "") -> Adapter:
    """Random factors, large enough to move a tiny model."""
    rng = torch.Generator().manual_seed(seed)
    factors = {
        module: LowRank(
            torch.randn(rank, inputs, generator=rng),
            torch.randn(outputs, rank, generator=rng) * 0.15,
            scale=2.0,
        )
        for module, (outputs, inputs) in linear_modules(lm).items()
        if only in module
    }
    return Adapter(name, factors)


def mixture(lm: HostModel, **weights: float) -> WeightsControl:
    """One adapter per name; ranks differ, and the last one changes only some modules."""
    attention = next(m for m in linear_modules(lm) if "attn" in m or "attention" in m)
    adapters = tuple(
        adapter(lm, name, seed=n, rank=n + 1, only=attention.split(".")[-2] if n == 2 else "")
        for n, name in enumerate(weights)
    )
    return WeightsControl(
        target=TARGET, adapters=adapters, weights=weights, provenance={"method": "made up"}
    )


def dense(control: WeightsControl, module: str) -> np.ndarray:
    """sum_i w_i s_i B_i A_i by its definition, in float64."""
    total = 0.0
    for one in control.adapters:
        if module in one.factors:
            part = one.factors[module]
            a, b = part.a.double().numpy(), part.b.double().numpy()
            total = total + control.weights[one.name] * part.scale * (b @ a)
    return total


def merged(lm: HostModel, control: WeightsControl) -> HostModel:
    """A copy of the model with the mixture in its weights."""
    model = copy.deepcopy(lm.model)
    for module in control.modules:
        linear = model.get_submodule(module)
        delta = torch.from_numpy(dense(control, module))
        delta = delta.T if isinstance(linear, Conv1D) else delta
        with torch.no_grad():
            linear.weight.copy_((linear.weight.double() + delta).to(linear.weight.dtype))
    return HostModel(model, lm.tokenizer, name=f"{lm.name}-merged")
