"""Controls on disk: one safetensors file with the settings in its header. Never pickle.

Header key `valign` holds JSON: format, kind, target profile, the value system in full (so that a
user's own system travels along), provenance, and per edit its site, kind, scope and strength.
Tensors are named `edit.3.vector`, `gate.resid:4.weight` and so on.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from valign.control.bridge import SETTINGS, BridgeControl
from valign.control.control import Control, EditsControl, TextControl
from valign.control.edit import Edit, Gate, Site
from valign.control.rewrite import SETTINGS as REWRITE_SETTINGS
from valign.control.rewrite import RewriteControl
from valign.control.weights import WeightsControl, from_file, to_file
from valign.values import Profile, ValignError, Value, ValueSystem

FORMAT = "valign-control/1"
SUFFIX = ".safetensors"


class ControlFileError(ValignError, ValueError):
    """A file that is no control, or a damaged one."""


def save(control: Control, path: str | Path) -> Path:
    """Write a control; a folder gets `control.safetensors`. The write is atomic.

    Returns:
        The file's path.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        path = path / f"control{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    head: dict[str, Any] = dict(
        format=FORMAT,
        kind=control.kind,
        target=control.target.named,
        system=asdict(control.target.system),
        provenance=control.provenance,
    )
    if isinstance(control, TextControl):
        head["instruction"] = control.instruction
        tensors["empty"] = torch.zeros(1)  # the format wants at least one tensor
    elif isinstance(control, RewriteControl):
        head["rewrite"] = {name: getattr(control, name) for name in REWRITE_SETTINGS}
        tensors["empty"] = torch.zeros(1)
    elif isinstance(control, EditsControl):
        head["edits"] = [
            dict(site=str(e.site), kind=e.kind, scope=e.scope, hold=e.hold, strength=e.strength)
            for e in control.edits
        ]
        for number, edit in enumerate(control.edits):
            parts = {**edit.tensors, "limit_low": edit.low, "limit_high": edit.high}
            for name, tensor in parts.items():
                if tensor is not None:
                    tensors[f"edit.{number}.{name}"] = tensor.detach().cpu().contiguous()
        tensors |= _gate_tensors(control.gate)
    elif isinstance(control, BridgeControl):
        head["bridge"] = {name: getattr(control, name) for name in SETTINGS}
        tensors |= {f"net.{k}": t.detach().cpu().contiguous() for k, t in control.tensors.items()}
    elif isinstance(control, WeightsControl):
        head["weights"], tensors = to_file(control)
        tensors |= _gate_tensors(control.gate)
    else:
        raise ControlFileError(f"Controls of kind {control.kind} cannot be saved.")
    copies = {name: tensor.clone() for name, tensor in tensors.items()}  # no shared storage
    try:
        header = json.dumps(head, sort_keys=True)
    except TypeError as error:
        raise ControlFileError(
            f"The control's provenance cannot be written as JSON: {error}. "
            "Put plain numbers, strings, lists and mappings into it."
        ) from None
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file(copies, temporary, metadata={"valign": header})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def load(path: str | Path) -> Control:
    """Read a control that `save` wrote, from the file or the folder it lies in.

    Raises:
        ControlFileError: nothing there, not a control, or damaged; the message says which.
    """
    path = Path(path)
    if path.is_dir():
        path = path / f"control{SUFFIX}"
    if not path.is_file():
        raise ControlFileError(
            f"No control at {path}. Expected a .safetensors file written by `control.save`, or "
            "the folder of a run (`valign run ... --out DIR`)."
        )
    try:
        with safe_open(path, framework="pt") as file:
            head = json.loads((file.metadata() or {}).get("valign", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ControlFileError(f"{path} is damaged or no safetensors file: {error}") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ControlFileError(
            f"{path} is a safetensors file but no valign control ({FORMAT}): its header says "
            f"{head.get('format') if isinstance(head, dict) else 'nothing'}."
        )
    try:
        return _rebuild(head, tensors)
    except ControlFileError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ValignError) as error:
        raise ControlFileError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _rebuild(head: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Control:
    system = _system(head["system"])
    shared: dict[str, Any] = dict(
        target=Profile.from_mapping(system, head["target"]), provenance=head["provenance"]
    )
    if "rewrite" in head:
        own = {name: head["rewrite"][name] for name in REWRITE_SETTINGS}
        return RewriteControl(**own, **shared)
    if head["kind"] == "text":
        return TextControl(instruction=head["instruction"], **shared)
    if head["kind"] == "bridge":
        settings = {name: head["bridge"][name] for name in SETTINGS}
        settings["scores"] = tuple(settings["scores"])
        nets = {k.removeprefix("net."): t for k, t in tensors.items() if k.startswith("net.")}
        return BridgeControl(tensors=nets, **settings, **shared)
    if head["kind"] == "weights":
        adapters, mixture = from_file(head["weights"], tensors)
        return WeightsControl(adapters=adapters, weights=mixture, gate=_gate_of(tensors), **shared)
    if head["kind"] != "edits":
        raise ControlFileError(f"This version of valign cannot read {head['kind']!r} controls.")
    edits = []
    for number, row in enumerate(head["edits"]):
        prefix = f"edit.{number}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        edits.append(
            Edit(
                site=Site.parse(row["site"]),
                kind=row["kind"],
                scope=row["scope"],
                hold=row["hold"],
                strength=row["strength"],
                low=own.pop("limit_low", None),
                high=own.pop("limit_high", None),
                tensors=own,
            )
        )
    return EditsControl(edits=tuple(edits), gate=_gate_of(tensors), **shared)


def _gate_tensors(gate: Gate | None) -> dict[str, torch.Tensor]:
    tensors = {}
    for site, (weight, bias) in (gate.weights if gate else {}).items():
        tensors[f"gate.{site}.weight"] = weight.detach().cpu().contiguous()
        tensors[f"gate.{site}.bias"] = bias.detach().cpu().reshape(1)
    return tensors


def _gate_of(tensors: dict[str, torch.Tensor]) -> Gate | None:
    weights = {
        Site.parse(name.split(".")[1]): (tensor, tensors[f"{name.removesuffix('weight')}bias"][0])
        for name, tensor in tensors.items()
        if name.startswith("gate.") and name.endswith(".weight")
    }
    return Gate(weights) if weights else None


def _system(data: dict[str, Any]) -> ValueSystem:
    values = tuple(Value(**{**row, "keywords": tuple(row["keywords"])}) for row in data["values"])
    return ValueSystem(
        name=data["name"],
        title=data["title"],
        source=data["source"],
        values=values,
        group_titles=tuple((a, b) for a, b in data["group_titles"]),
        opposite_groups=tuple((a, b) for a, b in data["opposite_groups"]),
        also_in=tuple((name, tuple(groups)) for name, groups in data["also_in"]),
    )
