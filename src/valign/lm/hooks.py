"""Reading and changing activations at a site, by hooks that always come off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from valign.control.edit import Site
from valign.lm.layout import Layout

Change = Callable[[torch.Tensor], torch.Tensor | None]
"""Takes the activation (batch, tokens, width), returns the changed one or None for 'as it was'."""


def hook_site(layout: Layout, site: Site, change: Change) -> list[RemovableHandle]:
    """Hang `change` on a site; the caller removes the handles."""
    module = layout.module(site)
    if site.kind not in ("neurons", "heads"):
        return [module.register_forward_hook(_after(change))]
    block = layout.blocks[site.layer]
    if site.kind == "neurons" and any(child is module for child in block.children()):
        # Blocks that hold their MLP inline (OPT) flatten (batch, tokens) before it.
        shape: list[torch.Size] = []
        seen = block.register_forward_pre_hook(_shape_reader(shape), with_kwargs=True)
        return [seen, module.register_forward_pre_hook(_before(_unflattened(change, shape)))]
    return [module.register_forward_pre_hook(_before(change))]


def _before(change: Change) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
        changed = change(args[0])
        return None if changed is None else (changed, *args[1:])

    return hook


def _shape_reader(shape: list[torch.Size]) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        shape[:] = [hidden.shape[:2]]

    return hook


def _unflattened(change: Change, shape: list[torch.Size]) -> Change:
    def outer(a: torch.Tensor) -> torch.Tensor | None:
        if a.ndim == 3:
            return change(a)
        changed = change(a.view(*shape[0], a.shape[-1]))
        return None if changed is None else changed.view_as(a)

    return outer


def _after(change: Change) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        # Blocks return the residual stream alone or first in a tuple, depending on the family.
        alone = isinstance(output, torch.Tensor)
        changed = change(output if alone else output[0])
        if changed is None:
            return None
        return changed if alone else (changed, *output[1:])

    return hook


@contextmanager
def hooked(layout: Layout, changes: Iterable[tuple[Site, Change]]) -> Iterator[None]:
    """Hang several changes for the length of a `with` block."""
    handles: list[RemovableHandle] = []
    try:
        for site, change in changes:
            handles += hook_site(layout, site, change)
        yield
    finally:
        for handle in handles:
            handle.remove()
