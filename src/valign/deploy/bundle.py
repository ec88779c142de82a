"""Profile bundles: several controls in one file, laid out for an engine that batches requests.

A bundle is `bundle.safetensors`. Its header key `valign` is JSON; its tensors are *banks*. A
control is a *slot*. A bank holds the edits of all slots that stand at one site, at one place in
their order, of one kind and scope, stacked; rows that need padding carry neutral elements, so an
engine never branches on a row. For every token it keeps one coefficient per slot: 0 is off, 1 the
strength the control was saved with, and several slots at once are a mix. `Bank.apply` is the
algebra, in plain torch operations of fixed shape, for use in a compiled graph:

    banks in header order, a (tokens, width) at bank.site, c = coefficients (tokens, slots)
    add       a + c @ vector
    push      a + (c[owner] * relu(target - bias - a weight^T)) @ direction     owner: row -> slot
    scale     a * (1 + c @ (factor - 1))
    clamp     a + sum_s c_s strength_s (min(max(a, low_s), high_s) - a)
    project   a - sum_s c_s strength_s (a . v_s) v_s

For banks of scope `generation` the engine sets c to 0 on prompt tokens before the last one. A
profile with a gate gets c only if its gate opens: max over sites of (w . a + b) > 0 at the last
prompt token, unsteered. `identity` belongs into prefix-cache and compile-cache keys.

Tensor names: `bank.I.NAME`, `gate.SLOT.SITE.weight` and `.bias`. Strengths are already in vector,
direction and factor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from valign.control.control import Control, EditsControl, TextControl
from valign.control.edit import Edit, EditKind, Scope, Site
from valign.control.rewrite import RewriteControl
from valign.deploy.errors import ExportError

FORMAT = "valign-bundle/1"
FILE = "bundle.safetensors"
KINDS = ("add", "push", "scale", "clamp", "project")
SITES = ("resid", "neurons")


@dataclass(frozen=True, eq=False)
class Bank:
    """Edits of several slots at one site, at one place in their order.

    Attributes:
        site, kind, scope: of all of them.
        slots: (n,) the slot of each row; for push one entry per constraint.
        tensors: float32. add: vector (n, width). push: weight, direction (n, width), gap (n,),
            target minus bias; optional low, high (n, width), the clip of the coordinates the
            constraints of a slot move. scale: factor (n, width), 1 elsewhere. clamp: low, high
            (n, width), infinite elsewhere, strength (n,). project: vector (n, width),
            strength (n,).
    """

    site: Site
    kind: EditKind
    scope: Scope
    slots: torch.Tensor
    tensors: dict[str, torch.Tensor]
    _spans: dict[int, slice] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        spans: dict[int, slice] = {}
        for row, slot in enumerate(self.slots.tolist()):  # the rows of a slot stand together
            spans[slot] = slice(spans[slot].start if slot in spans else row, row + 1)
        object.__setattr__(self, "_spans", spans)

    def to(self, device: torch.device) -> Bank:
        """The same bank on a device; `apply` there neither waits nor copies from the host."""
        tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, slots=self.slots.to(device), tensors=tensors)

    def apply(self, a: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        """Activations (tokens, width) after the bank; coefficients (tokens, slots of the bundle).

        Arithmetic in float32, the result in the type of `a`.
        """
        t, x = self.tensors, a.float()
        c = coefficients.float().index_select(1, self.slots)
        if self.kind == "add":
            out = torch.addmm(x, c, t["vector"])
        elif self.kind == "push":
            short = (t["gap"] - x @ t["weight"].T).relu() * c
            out = self._limited(x, short) if "low" in t else torch.addmm(x, short, t["direction"])
        elif self.kind == "scale":
            out = x * (1 + c @ (t["factor"] - 1))
        elif self.kind == "clamp":
            out, c = x, c * t["strength"]
            for row in range(len(self.slots)):  # all rows at once would take n times the memory
                inside = torch.minimum(torch.maximum(x, t["low"][row]), t["high"][row])
                out = out + c[:, row, None] * (inside - x)
        else:
            out = torch.addmm(x, (x @ t["vector"].T) * c * t["strength"], t["vector"], alpha=-1)
        return out.to(a.dtype)

    def _limited(self, x: torch.Tensor, short: torch.Tensor) -> torch.Tensor:
        """Moves under the clip of their own slot: no coordinate is moved beyond its limits."""
        out = x
        for own in self._spans.values():
            moved = x + short[:, own] @ self.tensors["direction"][own]
            low, high = (self.tensors[name][own][0] for name in ("low", "high"))
            limited = torch.minimum(torch.maximum(moved, torch.minimum(x, low)),
                                    torch.maximum(x, high))  # fmt: skip
            out = out + torch.where(moved == x, torch.zeros_like(x), limited - x)
        return out


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle file holds.

    Attributes:
        profiles: per slot a mapping: name, slot, kind (edits | text | rewrite), target, system,
            method, dose, instruction (text only), rewrite (template, changes, rewriter,
            max_new_tokens; rewrite only), gated, control_sha256.
        banks: in the order in which an engine applies them at a site.
        gates: slot -> site -> (weight (width,), bias ()).
        model: name, fingerprint, class, layers, width of the model it was made for.
        identity: SHA-256 over header and tensors.
    """

    profiles: tuple[dict[str, Any], ...]
    banks: tuple[Bank, ...]
    gates: dict[int, dict[Site, tuple[torch.Tensor, torch.Tensor]]]
    model: dict[str, Any]
    identity: str = ""

    @property
    def slots(self) -> int:
        return len(self.profiles)

    def slot(self, name: str) -> int:
        """Slot of a profile.

        Raises:
            ExportError: no such profile.
        """
        for profile in self.profiles:
            if profile["name"] == name:
                return int(profile["slot"])
        names = ", ".join(str(profile["name"]) for profile in self.profiles)
        raise ExportError(f"The bundle has no profile {name!r}. It holds: {names}.")


def make_bundle(
    controls: Mapping[str, Control], model: Mapping[str, Any], sha256: Mapping[str, str]
) -> Bundle:
    """Stack controls into banks.

    Args:
        controls: profile name -> control.
        model: see `Bundle.model`; "width" and "neurons" give the widths of the sites.
        sha256: profile name -> hash of the control.

    Raises:
        ExportError: an edit that an engine cannot hold per slot; names it and what would work.
    """
    profiles: list[dict[str, Any]] = []
    gates: dict[int, dict[Site, tuple[torch.Tensor, torch.Tensor]]] = {}
    groups: dict[tuple[Site, int, str, str], list[tuple[int, Edit]]] = {}
    for slot, (name, control) in enumerate(controls.items()):
        if isinstance(control, EditsControl):
            for key, edit in _placed(control):
                groups.setdefault(key, []).append((slot, edit))
            if control.gate is not None:
                gates[slot] = _gate(control)
        elif not isinstance(control, TextControl | RewriteControl):
            raise ExportError(
                f"A {control.kind} control cannot be put into a bundle; it takes edits, text and "
                "rewrites."
            )
        rewrite = _rewrite(control) if isinstance(control, RewriteControl) else None
        profiles.append(
            dict(
                name=name,
                slot=slot,
                kind="rewrite" if rewrite else control.kind,
                target=control.target.named,
                system=control.target.system.name,
                method=control.method,
                dose=control.provenance.get("dose"),
                instruction=getattr(control, "instruction", None),
                rewrite=rewrite,
                gated=slot in gates,
                control_sha256=sha256[name],
            )
        )
    banks = [
        _bank(site, kind, scope, rows, int(model["width" if site.kind == "resid" else "neurons"]))
        for (site, _, kind, scope), rows in sorted(groups.items(), key=lambda item: item[0])
    ]
    return Bundle(tuple(profiles), tuple(banks), gates, dict(model))


def _placed(control: EditsControl):
    """Each edit with its bank's key; the place counts per site, so order is kept."""
    places: dict[Site, int] = {}
    for edit in control.edits:
        if edit.kind not in KINDS or edit.site.kind not in SITES:
            why = (
                f"a vLLM bundle knows no {edit.kind}" if edit.kind not in KINDS
                else "a vLLM bundle reaches the residual stream and the neurons only"
            )  # fmt: skip
            works = "`with lm.controlled(control):` in Python"
            if edit.site.kind == "heads" and edit.kind not in ("push", "gradient", "rotate"):
                works += ", or --to peft"
            if edit.site.kind == "logits" and edit.kind == "add":
                works += ", --to peft, or the engine's own logit_bias"
            raise ExportError(
                f"vllm cannot hold the {edit.kind} edit at {edit.site}: {why}. Use {works}."
            )
        if edit.hold:
            raise ExportError(
                f"vllm cannot hold the push edit at {edit.site}: it keeps one move for the whole "
                "answer (hold=True), and a bundle has no memory per request. Fit with hold off, "
                "or use `with lm.controlled(control):` in Python."
            )
        place = places[edit.site] = places.get(edit.site, -1) + 1
        yield (edit.site, place, edit.kind, edit.scope), edit


def _rewrite(control: RewriteControl) -> dict[str, Any]:
    """What an engine needs to ask for a rewrite; the values in full, a system may be one's own."""
    from valign.lm.rewriting import listed

    changes = listed(control.target.system, control.target.named, steps=control.steps)
    return dict(
        template=control.template,
        changes=[asdict(change) for change in changes],
        rewriter=control.rewriter,
        max_new_tokens=control.max_new_tokens,
    )


def _gate(control: EditsControl) -> dict[Site, tuple[torch.Tensor, torch.Tensor]]:
    assert control.gate is not None
    for site in control.gate.weights:
        if site.kind not in SITES:
            raise ExportError(
                f"vllm cannot read a gate at {site}: a bundle reaches the residual stream and the "
                "neurons only. Fit the gate at resid sites."
            )
    return {
        site: (w.detach().float().cpu(), b.detach().float().cpu().reshape(()))
        for site, (w, b) in control.gate.weights.items()
    }


def _bank(site: Site, kind: str, scope: str, rows: Sequence[tuple[int, Edit]], width: int) -> Bank:
    def stacked(read) -> torch.Tensor:
        return torch.stack([read(edit).detach().float().cpu() for _, edit in rows])

    def dense(edit: Edit, name: str, fill: float) -> torch.Tensor:
        out = torch.full((width,), fill)
        out[edit.tensors["index"].cpu()] = edit.tensors[name].float().cpu()
        return out

    slots = [slot for slot, _ in rows]
    strength = torch.tensor([edit.strength for _, edit in rows])
    if kind == "add":
        tensors = dict(vector=stacked(lambda e: e.tensors["vector"] * e.strength))
    elif kind == "push":
        slots = [slot for slot, edit in rows for _ in edit.tensors["bias"]]
        tensors = _push([edit for _, edit in rows], width)
    elif kind == "scale":
        factors = stacked(lambda e: dense(e, "factor", 1.0))
        tensors = dict(factor=1 + strength[:, None] * (factors - 1))
    elif kind == "clamp":
        tensors = dict(
            low=stacked(lambda e: dense(e, "low", -torch.inf)),
            high=stacked(lambda e: dense(e, "high", torch.inf)),
            strength=strength,
        )
    else:
        tensors = dict(vector=stacked(lambda e: e.tensors["vector"]), strength=strength)
    return Bank(site, kind, scope, torch.tensor(slots), tensors)  # type: ignore[arg-type]


def _push(edits: Sequence[Edit], width: int) -> dict[str, torch.Tensor]:
    def joined(read) -> torch.Tensor:
        return torch.cat([read(edit).detach().float().cpu() for edit in edits])

    tensors = dict(
        weight=joined(lambda e: e.tensors["weight"]),
        gap=joined(lambda e: e.tensors["target"] - e.tensors["bias"]),
        direction=joined(lambda e: e.tensors["direction"] * e.strength),
    )
    if any(edit.low is not None or edit.high is not None for edit in edits):
        for name, open_end in (("low", -torch.inf), ("high", torch.inf)):
            limits = []
            for edit in edits:
                limit = getattr(edit, name)
                limit = torch.full((width,), open_end) if limit is None else limit.float().cpu()
                limits.append(limit.expand(len(edit.tensors["bias"]), width))
            tensors[name] = torch.cat(limits)
    return tensors


def save_bundle(bundle: Bundle, folder: str | Path) -> Path:
    """Write `bundle.safetensors`; the identity is computed here."""
    tensors = {
        f"bank.{number}.{name}": tensor.contiguous()
        for number, bank in enumerate(bundle.banks)
        for name, tensor in {**bank.tensors, "slots": bank.slots}.items()
    }
    for slot, sites in bundle.gates.items():
        for site, (weight, bias) in sites.items():
            tensors[f"gate.{slot}.{site}.weight"] = weight.contiguous()
            tensors[f"gate.{slot}.{site}.bias"] = bias.reshape(1)
    if not tensors:
        tensors["empty"] = torch.zeros(1)  # the format wants at least one
    head = dict(
        format=FORMAT,
        model=bundle.model,
        profiles=bundle.profiles,
        banks=[dict(site=str(b.site), kind=b.kind, scope=b.scope) for b in bundle.banks],
    )
    head["identity"] = _identity(head, tensors)
    path = Path(folder) / FILE
    save_file({k: v.clone() for k, v in tensors.items()}, path,
              metadata={"valign": json.dumps(head, sort_keys=True)})  # fmt: skip
    return path


def read_bundle(folder: str | Path) -> Bundle:
    """Read a bundle from its file or folder, and check its identity.

    Raises:
        ExportError: no bundle, a damaged one, or one whose content was changed.
    """
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {})["valign"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if head["format"] != FORMAT:
            raise ValueError(f"format {head['format']!r}, this version reads {FORMAT!r}")
        identity = head.pop("identity")
        if identity != _identity(head, tensors):
            raise ValueError("its content is not what its identity says")
        return _rebuilt(head, tensors, identity)
    except Exception as error:  # whatever a damaged file does to a parser
        raise ExportError(f"{path} is no readable bundle: {error}. Export it again.") from None


def _rebuilt(head: dict[str, Any], tensors: dict[str, torch.Tensor], identity: str) -> Bundle:
    banks = []
    for number, row in enumerate(head["banks"]):
        prefix = f"bank.{number}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        slots = own.pop("slots")
        banks.append(Bank(Site.parse(row["site"]), row["kind"], row["scope"], slots, own))
    gates: dict[int, dict[Site, tuple[torch.Tensor, torch.Tensor]]] = {}
    for name, tensor in tensors.items():
        if name.startswith("gate.") and name.endswith(".weight"):
            _, slot, site, _ = name.split(".")
            bias = tensors[f"{name.removesuffix('weight')}bias"][0]
            gates.setdefault(int(slot), {})[Site.parse(site)] = tensor, bias
    return Bundle(tuple(head["profiles"]), tuple(banks), gates, head["model"], identity)


def _identity(head: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
