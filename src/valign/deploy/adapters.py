"""Adapters as vLLM's LoRA serves them: what it refuses, and the options that start it with them.

A weights control is written as one PEFT adapter (`valign export --to peft`); vLLM lists it as a
model and wears it per request, beside profiles. On a CPU vLLM 0.32 gives rows without an adapter
whatever lies in the last of its slots, so one slot more is asked for than there are adapters: it
stays empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from valign.control.weights import Adapter, from_peft
from valign.deploy.errors import ExportError

CONFIG = "adapter_config.json"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""
OPTIONS = ("--enable-lora", "--lora-modules", "--max-lora-rank", "--max-loras")


def options(base: str, adapters: Mapping[str, Path]) -> list[str]:
    """The options of vLLM that serve adapters as the models BASE:NAME.

    Args:
        adapters: name -> PEFT folder.

    Raises:
        ExportError: a rank beyond what vLLM takes.
    """
    if not adapters:
        return []
    ranks = {name: _rank(folder) for name, folder in adapters.items()}
    highest = max(ranks, key=lambda name: ranks[name])
    if ranks[highest] > RANKS[-1]:
        raise ExportError(
            f"The adapter {highest} has rank {ranks[highest]}; vLLM takes ranks up to {RANKS[-1]}. "
            "Mix fewer adapters into it, or serve a checkpoint: valign export --to folded."
        )
    modules = [
        json.dumps({"name": f"{base}:{name}", "path": str(folder), "base_model_name": base})
        for name, folder in adapters.items()
    ]
    rank = next(rank for rank in RANKS if rank >= ranks[highest])
    return ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(len(adapters) + 1),
            "--lora-modules", *modules]  # fmt: skip


def read_servable(folder: Path, model: str) -> Adapter:
    """A PEFT adapter that vLLM can wear on a model.

    Args:
        model: folder or Hub name of the model that is served.

    Raises:
        ExportError: an adapter with biases, or one of another model.
        AdapterError: nothing there, damaged, or more than scale * B @ A.
    """
    if _settings(folder).get("lora_bias"):
        raise ExportError(
            f"The adapter in {folder} has a bias (lora_bias), which vLLM refuses. Serve the "
            "control it was made of as a profile instead: valign serve MODEL --control CONTROL, "
            "or a bundle of valign export --to vllm."
        )
    adapter = from_peft(folder, name=folder.name)
    _require_fit(adapter, folder, model)
    return adapter


def _require_fit(adapter: Adapter, folder: Path, model: str) -> None:
    """vLLM copies smaller factors into larger ones and passes over names it does not know."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        host = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    modules = dict(host.named_modules())
    for name, change in adapter.factors.items():
        weight = getattr(modules.get(name), "weight", None)
        if weight is None or sorted(weight.shape) != sorted(change.shape):
            has = "has no such module" if weight is None else f"has {tuple(weight.shape)} there"
            raise ExportError(
                f"The adapter in {folder} changes {name} {change.shape}, but {model} {has}. It "
                "was made for another model; serve that one."
            )


def _rank(folder: Path) -> int:
    settings = _settings(folder)
    return max([int(settings.get("r", 8)), *(settings.get("rank_pattern") or {}).values()])


def _settings(folder: Path) -> dict:
    try:
        return dict(json.loads((folder / CONFIG).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"No readable {CONFIG} in {folder}: {error}") from None
