"""The slow obvious way: one row at a time, no padding, no cache, one position after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from valign.control import Control, Edit, EditsControl, Gate, Site
from valign.lm import HostModel
from valign.values import Profile, load_system

NAMES = {
    "gpt2": ("transformer.h", "mlp.c_proj", "attn.c_proj"),
    "gpt_neox": ("gpt_neox.layers", "mlp.dense_4h_to_h", "attention.dense"),
    "opt": ("model.decoder.layers", "fc2", "self_attn.out_proj"),
    "mixtral": ("model.layers", None, "self_attn.o_proj"),
}
"""family -> decoder blocks, down projection, attention output; all others as in Llama."""
LLAMA = ("model.layers", "mlp.down_proj", "self_attn.o_proj")

TARGET = Profile.of(load_system("schwartz10"), benevolence=1)
KINDS = (
    "add",
    "push",
    "push3",
    "hold",
    "clip",
    "scale",
    "clamp",
    "project",
    "gradient",
    "rotate",
    "sphere",
)


def part(lm: HostModel, family: str, site: Site) -> torch.nn.Module:
    """The module of a site by its written name, without valign's layout."""
    if site.kind == "logits":
        return lm.model.get_output_embeddings()
    layers, down, out = NAMES.get(family, LLAMA)
    block = lm.model.get_submodule(f"{layers}.{site.layer}")
    return {"resid": lambda: block, "neurons": lambda: block.get_submodule(down),
            "heads": lambda: block.get_submodule(out)}[site.kind]()  # fmt: skip


def make_edit(kind: str, site: Site, width: int, *, seed: int = 0, scope="generation") -> Edit:
    """An edit of a kind that visibly moves a tiny model."""
    rng = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    if kind in ("push", "push3", "hold", "clip"):
        k = 3 if kind == "push3" else 1
        weight = noise(k, width) / width**0.5
        return Edit(
            site, "push",
            dict(weight=weight, bias=noise(k), target=torch.tensor([4.0, -4.0, 30.0])[-k:] - seed,
                 direction=torch.linalg.pinv(weight).T.contiguous()),
            scope=scope, hold=kind == "hold", strength=0.7,
            low=torch.full((width,), -1.0) if kind == "clip" else None,
            high=torch.full((width,), 2.0) if kind == "clip" else None,
        )  # fmt: skip
    index = torch.randperm(width, generator=rng)[: width // 2 + seed]
    tensors = {
        "add": lambda: dict(vector=noise(width)),
        "scale": lambda: dict(index=index, factor=noise(len(index)) * 2),
        "clamp": lambda: dict(index=index, low=noise(len(index)) - 0.5,
                              high=torch.full((len(index),), 2.5)),
        "project": lambda: dict(vector=torch.nn.functional.normalize(noise(width), dim=0)),
        "gradient": lambda: dict(w1=noise(4 + seed, width), b1=noise(4 + seed), w2=noise(4 + seed)),
        "rotate": lambda: dict(plane=torch.linalg.qr(noise(width, 2)).Q.T.contiguous(),
                               angle=noise(1)[0]),
        "sphere": lambda: dict(plane=torch.nn.functional.normalize(noise(1, width)),
                               angle=noise(1)[0].abs()),
    }[kind]()  # fmt: skip
    return Edit(site, "rotate" if kind == "sphere" else kind, tensors, scope=scope, strength=0.8)


def make_control(lm: HostModel, kind: str, *sites: str, seed=0, scope="generation", gate=None):
    """A control with one edit of a kind at each site."""
    found = [Site.parse(site) for site in sites]
    edits = [make_edit(kind, s, lm.site_width(s), seed=seed, scope=scope) for s in found]
    return EditsControl(target=TARGET, edits=tuple(edits), gate=gate, provenance={"method": kind})


def _changed(edit: Edit, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """One activation x (width,) after an edit; `start` is the last prompt token's."""
    t, s = edit.tensors, edit.strength
    if edit.kind == "add":
        return x + s * t["vector"]
    if edit.kind == "push":
        seen = start if edit.hold else x
        moved = x.clone()
        for w, b, goal, d in zip(t["weight"], t["bias"], t["target"], t["direction"], strict=True):
            short = goal - (w @ seen + b)
            if short > 0:
                moved = moved + s * short * d
        if edit.low is not None:
            for i in range(len(x)):
                if moved[i] != x[i]:
                    moved[i] = max(moved[i], min(x[i], edit.low[i]))
                    moved[i] = min(moved[i], max(x[i], edit.high[i]))
        return moved
    out = x.clone()
    if edit.kind == "scale":
        for i, factor in zip(t["index"], t["factor"], strict=True):
            out[i] = x[i] + s * (factor - 1) * x[i]
    elif edit.kind == "clamp":
        for i, low, high in zip(t["index"], t["low"], t["high"], strict=True):
            out[i] = x[i] + s * (x[i].clamp(low, high) - x[i])
    elif edit.kind == "project":
        out = x - s * (t["vector"] @ x) * t["vector"]
    elif edit.kind == "rotate":
        e = t["plane"][0]
        rest = x - (e @ x) * e
        f = t["plane"][1] if len(t["plane"]) == 2 else rest / rest.norm()
        radius, now = torch.hypot(e @ x, f @ x), torch.atan2(f @ x, e @ x)
        turn = float(t["angle"] - now)
        turn = (turn + math.pi) % (2 * math.pi) - math.pi
        new = now + max(-abs(s), min(abs(s), turn))
        flat = (e @ x) * e + (f @ x) * f
        out = x - flat + radius * (new.cos() * e + new.sin() * f)
    else:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            score = t["w2"] @ torch.nn.functional.gelu(t["w1"] @ y + t["b1"])
            out = x + s * torch.autograd.grad(score, y)[0]
    return out


@contextmanager
def _edited(lm: HostModel, family: str, edits: list[Edit], prompt: int) -> Iterator[None]:
    handles = []

    def run(edit: Edit, a: torch.Tensor) -> torch.Tensor:
        flat = a.reshape(-1, a.shape[-1])
        rows = list(flat)
        for t in range(len(rows)):
            if edit.scope == "all" or t >= prompt - 1:
                rows[t] = _changed(edit, flat[t], flat[prompt - 1])
        return torch.stack(rows).view_as(a)

    def before(edit):
        return lambda module, args: (run(edit, args[0]), *args[1:])

    def after(edit):
        def hook(module, args, output):
            if isinstance(output, tuple):
                return (run(edit, output[0]), *output[1:])
            return run(edit, output)

        return hook

    for edit in edits:
        module = part(lm, family, edit.site)
        handles.append(
            module.register_forward_pre_hook(before(edit))
            if edit.site.kind in ("neurons", "heads")
            else module.register_forward_hook(after(edit))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gate_reading(lm: HostModel, family: str, site: Site, w, b, ids: list[int]) -> float:
    """w . a + b at the last prompt token."""
    seen = []
    handle = part(lm, family, site).register_forward_hook(
        lambda m, a, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        lm.model(torch.tensor([ids]), use_cache=False)
    handle.remove()
    return float(w @ seen[0].reshape(-1, len(w))[-1] + b)


def gate_open(lm: HostModel, family: str, gate: Gate, ids: list[int]) -> bool:
    readings = [gate_reading(lm, family, s, w, b, ids) for s, (w, b) in gate.weights.items()]
    return max(readings) > 0


@torch.no_grad()
def full_logits(
    lm: HostModel, family: str, ids: list[int], prompt: int, control: Control | None
) -> torch.Tensor:
    """Logits (tokens, vocabulary) of one row whose first `prompt` tokens are the prompt."""
    edits = list(control.edits) if isinstance(control, EditsControl) else []
    if edits and control.gate is not None and not gate_open(lm, family, control.gate, ids[:prompt]):
        edits = []
    with _edited(lm, family, edits, prompt):
        return lm.model(torch.tensor([ids]), use_cache=False).logits[0].float()


def answer(
    lm: HostModel, family: str, prompt: list[int], control: Control | None, steps: int
) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens and the logits (steps made, vocabulary) they were chosen from."""
    ids, seen = list(prompt), []
    for _ in range(steps):
        seen.append(full_logits(lm, family, ids, len(prompt), control)[-1])
        token = int(seen[-1].argmax())
        if token in lm.stop_ids:
            break
        ids.append(token)
    return ids[len(prompt) :], torch.stack(seen)


@contextmanager
def watched(lm: HostModel) -> Iterator[list[torch.Tensor]]:
    """Collects the last logits (batch, vocabulary) of every pass of the model."""
    seen: list[torch.Tensor] = []
    handle = lm.model.register_forward_hook(
        lambda module, args, out: seen.append(out.logits[:, -1].float())
    )
    try:
        yield seen
    finally:
        handle.remove()


def rows_in_order(prompt_tokens: list[int]) -> list[int]:
    """The order in which `generate` runs rows: by length, stable."""
    return sorted(range(len(prompt_tokens)), key=prompt_tokens.__getitem__)
