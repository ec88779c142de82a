"""Folded checkpoints: the control becomes part of the weights, and costs nothing any more."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from valign.control.control import Control
from valign.deploy.certificate import Runner, answer_logits
from valign.deploy.errors import ExportError
from valign.deploy.static import changes
from valign.deploy.stock import with_biases
from valign.lm import HostModel

TO = "folded"
READ_BY = "transformers, AutoModelForCausalLM.from_pretrained"


def write(lm: HostModel, control: Control, folder: Path) -> None:
    """Write a checkpoint with the control in its weights, and the tokenizer.

    Raises:
        ExportError: an edit that no weights hold, a family without room for a constant, or
            shared weights.
    """
    require_plain_model(lm)
    names = {module: name for name, module in lm.model.named_modules()}
    folds = {names[module]: (module, change) for module, change in
             changes(lm, control, TO).items()}  # fmt: skip
    for name, (module, change) in folds.items():
        if change.rank and sum(p is module.weight for p in _all_weights(lm.model)) > 1:
            raise ExportError(
                f"{name} shares its weights with another part of {lm.name} (tied embeddings), "
                "which the fold would change too. Use --to peft."
            )
    checkpoint = with_biases(lm.model, [n for n, (_, c) in folds.items() if c.has_bias])
    weights = {name: tensor.detach() for name, tensor in checkpoint.weights.items()}
    for name, (module, change) in folds.items():
        key = f"{name}.weight"
        if change.rank:
            delta = change.left @ change.right
            delta = delta.T if isinstance(module, Conv1D) else delta
            weights[key] = _plus(weights[key], delta)
        if change.has_bias:
            weights[f"{name}.bias"] = _plus(weights[f"{name}.bias"], change.bias)
    config = copy.deepcopy(checkpoint.config)
    config.architectures = [checkpoint.architecture]
    if checkpoint.rewritten:
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        held = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        save_torch_state_dict(held, folder, metadata={"format": "pt"})
    else:
        named = lm.model.config.architectures  # saving a model writes its class there
        try:
            lm.model.save_pretrained(folder, state_dict=weights)
        finally:
            lm.model.config.architectures = named
    config.save_pretrained(folder)
    if lm.model.generation_config is not None:
        lm.model.generation_config.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)


def _all_weights(model: torch.nn.Module) -> list[torch.nn.Parameter | None]:
    return [getattr(module, "weight", None) for module in model.modules()]


def run(lm: HostModel, folder: Path) -> Runner:
    """The checkpoint, read back as anybody would read it."""
    read: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    model, report = read
    if report["missing_keys"] or report["unexpected_keys"]:
        odd = sorted({*report["missing_keys"], *report["unexpected_keys"]})
        raise ExportError(f"The folded checkpoint and its model class differ in {odd[0]}.")
    model = model.eval().to(lm.device)
    return lambda prompt, answer: answer_logits(model, lm.encode_prompt(prompt), answer, lm.device)


def require_plain_model(lm: HostModel) -> None:
    """Refuse a model that wears an adapter or is quantised.

    Raises:
        ExportError: says which, and what to do.
    """
    if hasattr(lm.model, "peft_config"):
        raise ExportError(
            f"{lm.name} wears a PEFT adapter, so there are no weights of its own to fold into. "
            "Merge it first (`model.merge_and_unload()`), then export."
        )
    if getattr(lm.model, "is_quantized", False) or any(
        type(m).__module__.startswith("torch.ao.nn.quantized") for m in lm.model.modules()
    ):
        raise ExportError(
            f"{lm.name} is quantised; what is folded into its weights would be rounded away. Load "
            "it unquantised, export, and quantise the exported checkpoint."
        )


def _plus(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """weight + delta, added in float64 and rounded once."""
    return (weight.double() + delta.to(weight.device)).to(weight.dtype)
