"""Sixteen profiles of every kind a bundle holds, mixes of them, and the slow way to run them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from tests.deploy.cases import control, edit
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import EditsControl, Gate, Site
from valign.deploy import export
from valign.lm import HostModel
from valign.lm.gates import read_gates

ASKED = [*PROMPTS, "win ?", "the world and nature", "go home , friend", "custom", "I care not"]
SIZE = dict(hidden_size=64, intermediate_size=128)


def save_model(folder: Path, family: str = "llama") -> HostModel:
    """A tiny random model as a checkpoint with tokenizer; it never ends a text by itself."""
    head = {} if family == "qwen2" else {"head_dim": 32}  # vLLM's CPU attention wants 32 or more
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1} if family == "qwen2" else {}
    made = tiny_lm(family, **{**SIZE, **head, **heads})
    made.model.generation_config.eos_token_id = None
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return HostModel.load(folder, dtype="float32")


def controls(lm: HostModel) -> dict[str, EditsControl]:
    """Profile name -> control; all kinds, scopes and sites, two of them gated."""

    def one(kind: str, site: str, scope: str = "generation", seed: int = 0):
        return control(edit(lm, kind, site, scope=scope, seed=seed))

    return {
        "early": one("add", "resid:0", "all"),
        "add": one("add", "resid:1"),
        "neurons": one("add", "neurons:1", seed=1),
        "whole": one("add", "resid:2", "all", seed=2),
        "push": one("push", "resid:1", seed=1),
        "push3": one("push3", "resid:0"),
        "push-neurons": one("push", "neurons:1", "all"),
        "clip": one("clip", "neurons:2"),
        "clamp": one("clamp", "resid:1", "all"),
        "scale": one("scale", "neurons:0", "all"),
        "project": one("project", "resid:1"),
        "scale-resid": one("scale", "resid:2"),
        "several": control(
            edit(lm, "push", "resid:1", scope="generation", seed=2),
            edit(lm, "add", "resid:1", scope="generation", seed=3),
            edit(lm, "scale", "neurons:2", scope="generation", seed=1),
        ),
        "gated": replace(one("add", "resid:2", seed=4), gate=_gate(lm, 1)),
        "late": one("add", "neurons:2", seed=5),
        "gated-push": replace(one("push", "neurons:2", seed=3), gate=_gate(lm, 0, 1)),
    }


def _gate(lm: HostModel, *layers: int) -> Gate:
    """Opens for about half of all prompts."""
    rng = torch.Generator().manual_seed(11)
    width = lm.layout.width
    shift = 0.0 if len(layers) == 1 else -5.0
    return Gate(
        {
            Site("resid", layer): (torch.randn(width, generator=rng), torch.tensor(shift))
            for layer in layers
        }
    )


MIXES = {
    "early=0.5,add=-0.7": {"early": 0.5, "add": -0.7},
    "whole=1,late=0.5,neurons=-0.3": {"whole": 1, "late": 0.5, "neurons": -0.3},
    "gated=0.8,whole=0.5": {"gated": 0.8, "whole": 0.5},
    "push=0.5": {"push": 0.5},
    "clip=0.6,add=0.2": {"clip": 0.6, "add": 0.2},
    "scale=0.3,whole=-0.4": {"scale": 0.3, "whole": -0.4},
}


def write_bundle(lm: HostModel, folder: Path) -> dict[str, EditsControl]:
    made = controls(lm)
    export(lm, made, to="vllm", out=folder, prompts=ASKED, tokens=2)
    return made


def mixed(
    lm: HostModel, made: dict[str, EditsControl], mix: dict[str, float], ids: list[int]
) -> tuple[EditsControl | None, list[bool]]:
    """The one control without a gate that a mix is for a prompt, and what its gates said."""
    edits, said = [], []
    for name, number in mix.items():
        one = made[name]
        if one.gate is not None:
            row = torch.tensor([ids])
            start = torch.tensor([len(ids) - 1])
            said.append(bool(read_gates(lm, [one.gate], start, {"input_ids": row})[0]))
            if not said[-1]:
                continue
        edits += one.scaled(number).edits
    return (control(*edits) if edits else None), said


def alone(
    lm: HostModel, made: dict[str, EditsControl], mix: dict[str, float], ids: list[int], tokens: int
) -> list[int]:
    """Greedy tokens of the hooked Hugging Face model, one request by itself, without a cache."""
    steering, _ = mixed(lm, made, mix, ids)
    row = torch.tensor([ids])
    settings = dict(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    mask = torch.ones_like(row)
    with torch.no_grad():
        if steering is None:
            found = lm.model.generate(row, attention_mask=mask, **settings)
        else:
            with lm.controlled(steering):
                found = lm.model.generate(row, attention_mask=mask, **settings)
    return found[0, len(ids) :].tolist()


def some_prompts(count: int, *, seed: int = 0, longest: int = 100) -> list[list[int]]:
    """Distinct random prompts of 4 and more tokens."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, longest, (count,), generator=rng).tolist()
    return [torch.randint(7, 96, (n,), generator=rng).tolist() for n in lengths]
