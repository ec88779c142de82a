"""Edits as weights: which edits a set of weights can hold exactly, and what they become.

Weights act on every token of every request alike. So an edit fits into them if it is an affine
map of the activation (a -> a + U V a + c), if it covers every position whose activations later
tokens read, and if no gate decides about it. Everything else is refused by name. At the input of
a linear map W the edits then become W' = W (I + U V) and a bias W c, exactly:

    add                    U V = 0                       c = strength * vector
    scale                  U V = strength * diag(s - 1)  c = 0
    project                U V = -strength * v v^T       c = 0
    clamp with low = high  U V = -strength on the diagonal, c = strength * low there
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from valign.control.control import Control, EditsControl
from valign.control.edit import Edit, Site
from valign.control.weights import WeightsControl
from valign.deploy.errors import ExportError
from valign.lm import HostModel
from valign.lm.hooks import hooked
from valign.lm.steer import check_edits
from valign.lm.weights import target_module


@dataclass(frozen=True, eq=False)
class Change:
    """What becomes of a linear map y = W x: y = (W + left @ right) x + bias, all float64.

    Attributes:
        left: (outputs, rank). right: (rank, inputs). bias: (outputs,).
    """

    left: torch.Tensor
    right: torch.Tensor
    bias: torch.Tensor

    @property
    def rank(self) -> int:
        return self.right.shape[0]

    @property
    def has_bias(self) -> bool:
        return bool(self.bias.any())


def widened(control: EditsControl) -> EditsControl:
    """The same control with every edit on all tokens, the prompt's too."""
    return replace(control, edits=tuple(replace(edit, scope="all") for edit in control.edits))


def require_static(lm: HostModel, control: Control, to: str) -> EditsControl:
    """The control, if weights can hold it at all.

    An edit after the last attention needs not cover the prompt: no later token reads it there.

    Raises:
        ExportError: another kind of control, a gate, or an edit that begins at the answer.
        UnsupportedSiteError: a control that does not fit the model.
    """
    if not isinstance(control, EditsControl):
        raise ExportError(
            f"A {control.kind} control cannot be exported to {to}: it is not made of edits. "
            "Use --to prompt or vllm."
        )
    check_edits(lm, control)
    if control.gate is not None:
        raise ExportError(
            f"This control opens its gate prompt by prompt; what {to} holds acts on every prompt. "
            "Use --to vllm, which carries the gate, fit it with gate=false, or export "
            "control.ungated()."
        )
    for edit in control.edits:
        last = edit.site.kind == "logits" or edit.site.layer == lm.n_layers - 1
        if edit.scope == "generation" and not last:
            raise ExportError(
                f"The {edit.kind} edit at {edit.site} begins at the last prompt token; what {to} "
                "holds acts on the whole prompt too. Use --to vllm, or widen it to all tokens: "
                "`--everywhere`, in Python everywhere=True (a somewhat stronger control; the "
                "certificate then speaks of the widened one)."
            )
    return control


def refuse(edit: Edit, to: str, why: str, *, works: str = "--to vllm") -> ExportError:
    """The error for one edit that a format cannot hold."""
    return ExportError(f"{to} cannot hold the {edit.kind} edit at {edit.site}: {why} Use {works}.")


def by_site(edits: Iterable[Edit]) -> dict[Site, list[Edit]]:
    """The edits of each site, in their order; sites in layer order."""
    found: dict[Site, list[Edit]] = {}
    for edit in edits:
        found.setdefault(edit.site, []).append(edit)
    return dict(sorted(found.items()))


def affine(edit: Edit, width: int, to: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An edit as a -> a + U V a + c: U (width, r), V (r, width), c (width,), float64.

    Raises:
        ExportError: the edit is no affine map.
    """
    t, s = edit.tensors, edit.strength
    zero = torch.zeros(width, dtype=torch.float64)
    none = zero.new_zeros(width, 0)
    if edit.kind == "add":
        return none, none.T, s * t["vector"].double().cpu()
    if edit.kind == "project":
        v = t["vector"].double().cpu()[:, None]
        return -s * v, v.T, zero
    if edit.kind == "scale":
        moved, constant = zero.clone(), zero
        moved[t["index"].cpu()] = s * (t["factor"].double().cpu() - 1)
    elif edit.kind == "clamp" and torch.equal(t["low"], t["high"]):
        moved, constant = zero.clone(), zero.clone()
        moved[t["index"].cpu()] = -s
        constant[t["index"].cpu()] = s * t["low"].double().cpu()
    else:
        raise refuse(edit, to, "how far it moves depends on the activation, which no constant "
                     "weights repeat.", works=_IN_GRAPH[edit.kind])  # fmt: skip
    touched = moved.nonzero()[:, 0]
    pick = torch.zeros(width, len(touched), dtype=torch.float64)
    pick[touched, torch.arange(len(touched))] = 1.0
    return pick * moved[touched], pick.T, constant


_IN_GRAPH = {
    "push": "--to vllm",
    "clamp": "--to vllm (a clamp whose low equals its high would fit: it sets a constant)",
    "gradient": "`with lm.controlled(control):` in Python",
    "rotate": "`with lm.controlled(control):` in Python",
}


def fold(weight: torch.Tensor, edits: Sequence[Edit], to: str) -> Change:
    """What edits at the input of a linear map make of it; `weight` is (outputs, inputs)."""
    outputs, inputs = weight.shape
    now = weight.detach().double().cpu()
    lefts, rights = [now.new_zeros(outputs, 0)], [now.new_zeros(0, inputs)]
    bias = now.new_zeros(outputs)
    for edit in reversed(edits):  # the last edit stands next to W
        u, v, c = affine(edit, inputs, to)
        bias = bias + now @ c
        left = now @ u
        lefts.append(left)
        rights.append(v)
        now = now + left @ v
    return Change(torch.cat(lefts, dim=1), torch.cat(rights), bias)


def linear_weight(module: nn.Module, what: str) -> torch.Tensor:
    """Weight of a plain linear map as (outputs, inputs).

    Raises:
        ExportError: the map is quantised, or wears an adapter.
    """
    if type(module) is nn.Linear:
        return module.weight
    if type(module) is Conv1D:
        return module.weight.T
    raise ExportError(
        f"{what} is a {type(module).__name__}; its weights cannot be folded. Merge the adapter "
        "first (`model.merge_and_unload()`), or load the model unquantised, then export."
    )


def changes(lm: HostModel, control: Control, to: str) -> dict[nn.Module, Change]:
    """What a control makes of the model's linear maps.

    Raises:
        ExportError: what no weights hold; the message says which and what would work.
        UnsupportedSiteError: a control that does not fit the model.
    """
    if isinstance(control, WeightsControl):
        return _mixture(lm, control)
    return _folded_edits(lm, require_static(lm, control, to), to)


def _mixture(lm: HostModel, control: WeightsControl) -> dict[nn.Module, Change]:
    """Adapters are changes already: their ranks side by side, the weights in the left part."""
    found = {}
    for name in control.modules:
        module = target_module(lm, control, name)
        linear_weight(module, name)
        left, right = control.mixed(name)
        if right.shape[0]:
            found[module] = Change(left, right, left.new_zeros(len(left)))
    return found


def _folded_edits(lm: HostModel, control: EditsControl, to: str) -> dict[nn.Module, Change]:
    """What edits make of the model's linear maps.

    neurons and heads edits change the projection they feed; adds after a block become a bias of
    its down projection, adds on the logits a bias of the head.

    Raises:
        ExportError: an edit that no weights hold; the message says which and what would work.
    """
    found: dict[nn.Module, Change] = {}
    for site, edits in by_site(control.edits).items():
        if site.kind in ("neurons", "heads"):
            module = lm.layout.module(site)
            change = fold(linear_weight(module, f"What {site} feeds"), edits, to)
        else:
            module = _writer(lm, site, edits, to)
            weight = linear_weight(module, f"What writes {site}")
            outputs, inputs = weight.shape
            left = torch.zeros(outputs, 0, dtype=torch.float64)
            right = torch.zeros(0, inputs, dtype=torch.float64)
            constants = [affine(edit, outputs, to)[2] for edit in edits]
            change = Change(left, right, torch.stack(constants).sum(0))
        before = found.get(module)
        if before is not None:  # neurons and residual of one block share the down projection
            change = Change(
                torch.cat([before.left, change.left], dim=1),
                torch.cat([before.right, change.right]),
                before.bias + change.bias,
            )
        found[module] = change
    return found


def _writer(lm: HostModel, site: Site, edits: Sequence[Edit], to: str) -> nn.Module:
    """The linear map whose bias is a constant added at a residual or logits site."""
    for edit in edits:
        if edit.kind != "add":
            raise refuse(
                edit, to, "several parts of the block write to this place, and none of them sees "
                "the sum." if site.kind == "resid" else "only constants can be added there.",
                works=_IN_GRAPH.get(edit.kind, "--to vllm")
                + (" (at neurons or heads sites scale and project fit)"
                   if edit.kind in ("scale", "project") else ""),
            )  # fmt: skip
    if site.kind == "logits":
        return lm.layout.head
    down = lm.layout.down[site.layer]
    block = type(lm.layout.blocks[site.layer]).__name__
    if down is None:
        raise refuse(edits[0], to, f"a {block} has no single down projection.")
    if not writes_plainly(lm, site.layer):
        raise refuse(
            edits[0], to, f"a {block} normalises or scales what its down projection "
            "writes, so a bias there is no constant after the block.",
            works="--to vllm or --to gguf",
        )  # fmt: skip
    return down


def writes_plainly(lm: HostModel, layer: int) -> bool:
    """Whether what a block's down projection writes reaches the residual stream unchanged.

    Found out by trying: a constant is added to the projection's output, and the block's output
    must move by that constant.
    """
    down = lm.layout.down[layer]
    if down is None:
        return False
    site = Site("resid", layer)
    ids = torch.zeros(1, 2, dtype=torch.long, device=lm.device)
    seen: list[torch.Tensor] = []
    constant = torch.linspace(0.5, 1.5, lm.layout.width)

    def note(a: torch.Tensor) -> None:
        seen.append(a.detach().float().cpu())

    def moved(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        return output + constant.to(output)

    with torch.no_grad(), hooked(lm.layout, [(site, note)]):
        lm.model(ids, use_cache=False)
        handle = down.register_forward_hook(moved)
        try:
            lm.model(ids, use_cache=False)
        finally:
            handle.remove()
    rise = seen[1] - seen[0]
    scale = max(1.0, float(seen[0].abs().max()))
    return bool((rise - constant).abs().max() < 1e-3 * scale)
