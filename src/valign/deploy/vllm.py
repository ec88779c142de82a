"""The vLLM profile bundle: written, and run as an engine would run it, one slot at a time.

The check walks the banks of the file itself with per-token coefficients (see
`valign.deploy.bundle`), apart from the hooks' own program, so file and algebra are both tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from valign.control.control import Control, EditsControl
from valign.control.edit import Site
from valign.control.rewrite import HOST
from valign.deploy.bundle import Bundle, make_bundle, read_bundle, save_bundle
from valign.deploy.certificate import Runner, answer_logits, rewriting_logits
from valign.deploy.vllm_plugin.rewrites import asked
from valign.lm import HostModel
from valign.lm.hooks import hooked
from valign.lm.render import Prompt
from valign.lm.steer import check_edits

TO = "vllm"
READ_BY = "valign.deploy.bundle, its banks on the Hugging Face model (not vLLM itself)"


def write(
    lm: HostModel, controls: Mapping[str, Control], sha256: Mapping[str, str], folder: Path
) -> None:
    """Write `bundle.safetensors` with one slot per control.

    Raises:
        ExportError: an edit a bundle cannot hold.
        UnsupportedSiteError: a control that does not fit the model.
    """
    for control in controls.values():
        if isinstance(control, EditsControl):
            check_edits(lm, control)
    sites = {e.site for c in controls.values() if isinstance(c, EditsControl) for e in c.edits}
    neurons = {lm.site_width(site) for site in sites if site.kind == "neurons"}
    model = {
        "name": lm.name,
        "fingerprint": lm.fingerprint,
        "class": type(lm.model).__name__,
        "layers": lm.n_layers,
        "width": lm.layout.width,
        "neurons": max(neurons, default=0),
    }
    save_bundle(make_bundle(controls, model, sha256), folder)


def run(lm: HostModel, folder: Path, name: str) -> Runner:
    """One profile of the bundle, at coefficient 1."""
    bundle = read_bundle(folder)
    slot = bundle.slot(name)
    if rewrite := bundle.profiles[slot].get("rewrite"):
        return partial(_rewriting_logits, lm, rewrite)

    def logits(prompt: Prompt, answer: list[int]) -> torch.Tensor:
        head = lm.encode_prompt(prompt, bundle.profiles[slot]["instruction"])
        on = slot not in bundle.gates or _opens(lm, bundle, slot, head)
        rows = torch.zeros(2, len(head) + len(answer), bundle.slots, device=lm.device)
        if on:
            rows[0, :, slot] = 1.0
            rows[1, len(head) - 1 :, slot] = 1.0
        scopes = {"all": rows[0], "generation": rows[1]}
        changes = []
        for site in sorted({bank.site for bank in bundle.banks}):
            banks = [bank for bank in bundle.banks if bank.site == site]

            def change(a: torch.Tensor, banks=banks) -> torch.Tensor:
                x = a.view(-1, a.shape[-1])
                for bank in banks:
                    x = bank.apply(x, scopes[bank.scope].to(x.device))
                return x.view_as(a)

            changes.append((site, change))
        with hooked(lm.layout, changes):
            return answer_logits(lm.model, head, answer, lm.device)

    return logits


def _rewriting_logits(
    lm: HostModel, rewrite: Mapping[str, Any], prompt: Prompt, answer: list[int]
) -> torch.Tensor:
    rewriter = lm if rewrite["rewriter"] == HOST else HostModel.load(rewrite["rewriter"])
    return rewriting_logits(lm, prompt, answer, partial(asked, rewrite), rewriter)


def _opens(lm: HostModel, bundle: Bundle, slot: int, head: list[int]) -> bool:
    """Whether a profile's gate opens for a prompt, read on the unsteered model."""
    readings: list[float] = []

    def reader(site: Site):
        weight, bias = bundle.gates[slot][site]

        def read(a: torch.Tensor) -> None:
            readings.append(float(a[0, -1].float().cpu() @ weight + bias))

        return read

    with hooked(lm.layout, [(site, reader(site)) for site in bundle.gates[slot]]):
        answer_logits(lm.model, head, [], lm.device)
    return max(readings) > 0
