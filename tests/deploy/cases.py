"""Controls of every kind, what each format makes of them, and the tiny models they run on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from transformers import GemmaConfig, GemmaForCausalLM

from tests.lm.reference import TARGET, make_edit
from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm, tiny_tokenizer
from valign.control import Edit, EditsControl, Gate, Site, TextControl
from valign.lm import HostModel, capture

MODELS = ("llama", "qwen2", "mistral", "gemma", "gpt2", "gemma2", "qwen3")


def model(family: str) -> HostModel:
    """A tiny model; Gemma of the first kind is made here."""
    if family != "gemma":
        return tiny_lm(family)
    torch.manual_seed(0)
    made = GemmaForCausalLM(GemmaConfig(**FAMILIES["llama"]))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(6.0) if parameter.ndim > 1 else parameter.add_(0.3)
    return HostModel(made, tiny_tokenizer(), name="tiny-gemma")


def edit(lm: HostModel, kind: str, site: str, *, scope: str = "all", seed: int = 0) -> Edit:
    """`set` and `zero` are clamps whose low equals their high."""
    place = Site.parse(site)
    made = make_edit(
        "clamp" if kind in ("set", "zero") else kind, place, lm.site_width(place),
        seed=seed, scope=scope,
    )  # fmt: skip
    if kind not in ("set", "zero"):
        return made
    level = torch.zeros_like(made.tensors["low"]) if kind == "zero" else made.tensors["low"]
    return replace(made, tensors={**made.tensors, "low": level, "high": level})


def control(*edits: Edit, gate: Gate | None = None) -> EditsControl:
    return EditsControl(target=TARGET, edits=edits, gate=gate, provenance={"method": "made up"})


def gate(lm: HostModel, *, opens: bool) -> Gate:
    """Open (or closed) for all prompts."""
    site = Site("resid", 1)
    (_, found), *_ = capture(lm, [(p, "the") for p in PROMPTS], [site], positions="prompt")
    weight = found[site].mean(0)
    reading = found[site] @ weight
    margin = 1 + reading.max() - reading.min()
    bias = margin - reading.min() if opens else -margin - reading.max()
    return Gate({site: (weight, bias)})


@dataclass(frozen=True)
class Case:
    """A control, and per format what its refusal says; formats not named are exact.

    `only` restricts an expectation to families: ("folded", "gemma2") -> text.
    """

    make: Callable[[HostModel], EditsControl | TextControl]
    refused: dict[str, str] = field(default_factory=dict)
    only: dict[tuple[str, str], str] = field(default_factory=dict)

    def says(self, to: str, family: str) -> str | None:
        """What the refusal says, None where the export is exact."""
        return self.only.get((to, family), self.refused.get(to))


def _one(kind: str, site: str, scope: str = "all"):
    return lambda lm: control(edit(lm, kind, site, scope=scope))


_NO_BIAS = "no stock model class"
_VECTOR = {"gguf": "a constant after a block, nothing else"}
_MOVES = {"folded": "depends on the activation.*vllm", "peft": "depends on the activation.*vllm"}
_WORDS = {"prompt": "no instruction"}
_POST = "normalises or scales"
_LATE = dict.fromkeys(("folded", "peft", "gguf"), "begins at the last prompt token.*everywhere")
_GATED = dict.fromkeys(("folded", "peft", "gguf"), "opens its gate prompt by prompt.*vllm")
_ALL = ("folded", "peft", "gguf", "vllm")

CASES: dict[str, Case] = {
    "add-resid": Case(
        _one("add", "resid:1"),
        _WORDS,
        {("folded", "gemma2"): _POST, ("peft", "gemma2"): _POST, ("folded", "qwen3"): _NO_BIAS},
    ),
    "add-resid-0": Case(
        _one("add", "resid:0"),
        {**_WORDS, "gguf": "nothing after block 0"},
        {("folded", "gemma2"): _POST, ("peft", "gemma2"): _POST, ("folded", "qwen3"): _NO_BIAS},
    ),
    "add-neurons": Case(
        _one("add", "neurons:1"),
        _WORDS,
        {("folded", "gemma2"): _NO_BIAS, ("folded", "qwen3"): _NO_BIAS, ("gguf", "gemma2"): _POST},
    ),
    "add-heads": Case(_one("add", "heads:1"), {**_WORDS, **_VECTOR, "vllm": "residual stream"}),
    "add-logits": Case(
        _one("add", "logits"),
        {**_WORDS, **_VECTOR, "folded": _NO_BIAS, "vllm": "logit_bias"},
    ),
    "scale-neurons": Case(_one("scale", "neurons:1"), {**_WORDS, **_VECTOR}),
    "scale-heads": Case(_one("scale", "heads:0"), {**_WORDS, **_VECTOR, "vllm": "peft"}),
    "scale-resid": Case(
        _one("scale", "resid:1"),
        {**_WORDS, **_VECTOR, "folded": "none of them sees", "peft": "none of them sees"},
    ),
    "project-neurons": Case(_one("project", "neurons:0"), {**_WORDS, **_VECTOR}),
    "project-resid": Case(
        _one("project", "resid:1"),
        {**_WORDS, **_VECTOR, "folded": "neurons or heads", "peft": "neurons or heads"},
    ),
    "zero-neurons": Case(_one("zero", "neurons:1"), {**_WORDS, **_VECTOR}),
    "set-neurons": Case(
        _one("set", "neurons:1"),
        {**_WORDS, **_VECTOR},
        {("folded", "gemma2"): _NO_BIAS, ("folded", "qwen3"): _NO_BIAS},
    ),
    "clamp-neurons": Case(_one("clamp", "neurons:1"), {**_WORDS, **_VECTOR, **_MOVES}),
    "push-resid": Case(
        _one("push3", "resid:1"), {**_WORDS, **_VECTOR, "folded": "vllm", "peft": "vllm"}
    ),
    "push-neurons": Case(_one("push", "neurons:1"), {**_WORDS, **_VECTOR, **_MOVES}),
    "clipped-push": Case(_one("clip", "neurons:1"), {**_WORDS, **_VECTOR, **_MOVES}),
    "held-push": Case(
        _one("hold", "neurons:1"), {**_WORDS, **_VECTOR, **_MOVES, "vllm": "hold=True"}
    ),
    "gradient": Case(
        _one("gradient", "neurons:1"),
        {
            **_WORDS,
            **_VECTOR,
            "folded": "lm.controlled",
            "peft": "lm.controlled",
            "vllm": "no gradient.*lm.controlled",
        },
    ),
    "rotate": Case(
        _one("rotate", "neurons:1"),
        {
            **_WORDS,
            **_VECTOR,
            "folded": "lm.controlled",
            "peft": "lm.controlled",
            "vllm": "no rotate.*lm.controlled",
        },
    ),
    "from-the-answer-on": Case(
        _one("add", "resid:1", "generation"),
        {**_WORDS, **_LATE},
    ),
    "last-block": Case(
        lambda lm: control(
            edit(lm, "add", "neurons:2", scope="generation"),
            edit(lm, "add", "resid:2", scope="generation"),
        ),
        _WORDS,
        {
            ("folded", "gemma2"): _POST,
            ("peft", "gemma2"): _POST,
            ("gguf", "gemma2"): _POST,
            ("folded", "qwen3"): _NO_BIAS,
        },
    ),
    "gated": Case(
        lambda lm: control(edit(lm, "add", "resid:1"), gate=gate(lm, opens=True)),
        {**_WORDS, **_GATED},
    ),
    "several-neurons": Case(
        lambda lm: control(
            *(
                edit(lm, kind, f"neurons:{layer}", seed=seed)
                for seed, kind in enumerate(("scale", "add", "project", "set", "scale"))
                for layer in (0, 1)
            )
        ),
        {**_WORDS, **_VECTOR},
        {("folded", "gemma2"): _NO_BIAS, ("folded", "qwen3"): _NO_BIAS},
    ),
    "everything": Case(
        lambda lm: control(
            edit(lm, "add", "resid:1"),
            edit(lm, "scale", "neurons:1"),
            edit(lm, "push", "resid:1", scope="generation"),
            edit(lm, "project", "resid:1"),
            edit(lm, "clip", "neurons:2", scope="generation"),
            edit(lm, "clamp", "resid:0"),
        ),
        {**_WORDS, **_VECTOR, **_LATE},
    ),
    "words": Case(
        lambda lm: TextControl(target=TARGET, instruction="the family should help"),
        dict.fromkeys(("folded", "peft", "gguf"), "text control"),
    ),
}
