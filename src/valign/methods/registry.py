"""Which methods there are: valign's own, one line each, and those of installed packages."""

from __future__ import annotations

import difflib
from importlib import import_module, metadata
from typing import Any

from valign.methods.base import Method
from valign.methods.errors import UnknownMethodError

BUILTIN: dict[str, str] = {
    "none": "valign.methods.none:NoChange",
    "random": "valign.methods.random:RandomDirection",
    "prompt": "valign.methods.prompt:Instruction",
    "role": "valign.methods.role:Role",
    "logit-bias": "valign.methods.logit_bias:LogitBias",
    "caa": "valign.methods.caa:CAA",
    "angular": "valign.methods.angular:Angular",
    "cast": "valign.methods.cast:CAST",
    "iti": "valign.methods.iti:ITI",
    "conva": "valign.methods.conva:ConVA",
    "neva": "valign.methods.neva:NeVA",
    "valuelocate": "valign.methods.valuelocate:ValueLocate",
    "k-steering": "valign.methods.k_steering:KSteering",
    "pplm": "valign.methods.pplm:PPLM",
    "re-control": "valign.methods.re_control:REControl",
    "bipo": "valign.methods.bipo:BiPO",
    "reft": "valign.methods.reft:LoReFT",
    "sae": "valign.methods.sae:SAE",
    "svgt": "valign.methods.svgt:SVGT",
    "mva": "valign.methods.mva.method:MVA",
    "dpo": "valign.methods.dpo:DPO",
    "simpo": "valign.methods.simpo:SimPO",
    "sft": "valign.methods.sft:SFT",
    "visa": "valign.methods.visa:VISA",
}
"""Method name -> where its class is; a new method adds one line."""

ENTRY_POINTS = "valign.methods"
"""Entry-point group by which other packages add methods."""


def available_methods() -> tuple[str, ...]:
    """Names of all methods, valign's own first."""
    return (*BUILTIN, *sorted(set(_third_party()) - set(BUILTIN)))


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UnknownMethodError: no such method; the message names the nearest.
    """
    if name in BUILTIN:
        module, _, attribute = BUILTIN[name].partition(":")
        return getattr(import_module(module), attribute)
    others = _third_party()
    if name in others:
        return others[name].load()
    near = difflib.get_close_matches(name.lower(), available_methods(), n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UnknownMethodError(
        f"No method {name!r}.{hint} There are: {', '.join(available_methods())}."
    )


def get_method(name: str, **settings: Any) -> Method:
    """A method by name with its settings; values may be strings.

    Raises:
        UnknownMethodError: no such method.
        MethodSettingError: a setting it does not have or take.
    """
    return method_class(name)(**settings)


def _third_party() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}
