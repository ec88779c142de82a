"""Weights controls: low-rank adapters, one per value, mixed with free numbers.

For a linear map W0 the mixture is exact, whatever the numbers are (MVA, arXiv 2511.17579,
section "value combination"; the same algebra as task arithmetic, arXiv 2212.04089):

    W = W0 + sum_i w_i s_i B_i A_i

PEFT's `add_weighted_adapter(combination_type="linear")` mixes A and B apart and so adds the cross
terms B_i A_j; nothing here does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from valign.control.control import Control, Kind
from valign.control.edit import Gate
from valign.values.errors import ValignError


class AdapterError(ValignError, ValueError):
    """Adapters or weights that fit neither each other nor the algebra."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """A change of one linear map, scale * b @ a.

    Attributes:
        a: (rank, inputs). b: (outputs, rank). scale: alpha / r (rsLoRA: alpha / sqrt(r)).
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.a.ndim != 2 or self.b.ndim != 2 or len(self.a) != self.b.shape[1]:
            raise AdapterError(
                "A low-rank change needs a (rank, inputs) and b (outputs, rank), got a "
                f"{tuple(self.a.shape)} and b {tuple(self.b.shape)}."
            )
        if not (torch.isfinite(self.a).all() and torch.isfinite(self.b).all()):
            raise AdapterError("A low-rank change holds numbers that are not finite.")
        if not math.isfinite(self.scale):
            raise AdapterError(f"scale={self.scale} of a low-rank change is not finite.")

    @classmethod
    def dense(cls, delta: torch.Tensor) -> LowRank:
        """Any change (outputs, inputs), exactly: itself beside an identity."""
        outputs, inputs = delta.shape
        if outputs <= inputs:
            return cls(delta, torch.eye(outputs).to(delta))
        return cls(torch.eye(inputs).to(delta), delta)

    @property
    def rank(self) -> int:
        return len(self.a)

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the linear map it belongs to."""
        return self.b.shape[0], self.a.shape[1]

    @property
    def delta(self) -> torch.Tensor:
        """scale * b @ a, (outputs, inputs), float64."""
        return self.scale * (self.b.detach().double() @ self.a.detach().double())


@dataclass(frozen=True, eq=False)
class Adapter:
    """What one value (or one merge of several) changes.

    Attributes:
        name: the value it stands for.
        factors: dotted name of a linear module in the base model -> its change, for example
            `model.layers.0.self_attn.q_proj`.
    """

    name: str
    factors: Mapping[str, LowRank] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.name or not self.factors:
            raise AdapterError(
                f"An adapter has a name and changes at least one module; {self.name!r} changes "
                f"{len(self.factors)}."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightsControl(Control):
    """A control made of adapters, each with its weight.

    It acts on prompt and answer alike, as a fine-tuned model would.

    Attributes:
        adapters: with different names; where several change one module, of the same shape.
        weights: adapter name -> w_i, any finite number: 0 is off, 1 as trained, more than 1 or
            below 0 extrapolates. Every adapter is named.
        gate: where it stays shut for a prompt, that row runs without the adapters.
    """

    kind: ClassVar[Kind] = "weights"
    adapters: tuple[Adapter, ...]
    weights: dict[str, float]
    gate: Gate | None = None

    def __post_init__(self) -> None:
        names = [adapter.name for adapter in self.adapters]
        if not names or len(set(names)) != len(names):
            raise AdapterError(
                f"A weights control needs adapters with different names, got {names or 'none'}."
            )
        if set(self.weights) != set(names):
            raise AdapterError(
                f"The adapters are {', '.join(names)}; the weights name "
                f"{', '.join(self.weights) or 'nothing'}. Give each adapter a weight (0 is off)."
            )
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise AdapterError(f"The weight of {name} is {weight}; expected a finite number.")
        shapes: dict[str, tuple[tuple[int, int], str]] = {}
        for adapter in self.adapters:
            for module, change in adapter.factors.items():
                shape, first = shapes.setdefault(module, (change.shape, adapter.name))
                if shape != change.shape:
                    raise AdapterError(
                        f"{module} is {shape} in {first} and {change.shape} in {adapter.name}: "
                        "these adapters were trained on different models."
                    )

    @property
    def acting(self) -> tuple[Adapter, ...]:
        """The adapters whose weight is not 0."""
        return tuple(adapter for adapter in self.adapters if self.weights[adapter.name])

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that any adapter changes, in the order they come in."""
        return tuple(dict.fromkeys(m for adapter in self.adapters for m in adapter.factors))

    def with_weights(self, weights: Mapping[str, float]) -> WeightsControl:
        """The same adapters with other weights; those not named keep theirs.

        Raises:
            AdapterError: a name no adapter has, or a number that is not finite.
        """
        return replace(self, weights={**self.weights, **weights})

    def scaled(self, strength: float) -> WeightsControl:
        """All weights times `strength`."""
        return replace(self, weights={n: w * strength for n, w in self.weights.items()})

    def ungated(self) -> WeightsControl:
        return self if self.gate is None else replace(self, gate=None)

    def mixed(self, module: str) -> tuple[torch.Tensor, torch.Tensor]:
        """left (outputs, R) and right (R, inputs) with left @ right = sum_i w_i s_i B_i A_i.

        The ranks of the acting adapters side by side, weights folded into the left part; float64.
        R is 0 where none of them changes the module.

        Raises:
            AdapterError: a module no adapter changes.
        """
        parts = [
            (self.weights[adapter.name], adapter.factors[module])
            for adapter in self.adapters
            if module in adapter.factors
        ]
        if not parts:
            raise AdapterError(f"No adapter changes {module}; they change {self.modules[0]}, ...")
        outputs, inputs = parts[0][1].shape
        left, right = torch.zeros(outputs, 0).double(), torch.zeros(0, inputs).double()
        for weight, part in parts:
            if weight:
                scaled = weight * part.scale * part.b.detach().double().cpu()
                left = torch.cat([left, scaled], dim=1)
                right = torch.cat([right, part.a.detach().double().cpu()])
        return left, right

    def delta(self, module: str) -> torch.Tensor:
        """sum_i w_i s_i B_i A_i of one module, (outputs, inputs), float64."""
        left, right = self.mixed(module)
        return left @ right


def to_file(control: WeightsControl) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header entry and tensors of a control's file; `from_file` reads them."""
    rows = [
        dict(name=adapter.name, scales={m: part.scale for m, part in adapter.factors.items()})
        for adapter in control.adapters
    ]
    tensors = {}
    for number, adapter in enumerate(control.adapters):
        for module, part in adapter.factors.items():
            tensors[f"adapter.{number}.{module}.a"] = part.a.detach().cpu().contiguous()
            tensors[f"adapter.{number}.{module}.b"] = part.b.detach().cpu().contiguous()
    return dict(adapters=rows, weights=control.weights), tensors


def from_file(
    head: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> tuple[tuple[Adapter, ...], dict[str, float]]:
    """Adapters and weights of a control's file."""
    adapters = tuple(
        Adapter(
            row["name"],
            {
                module: LowRank(
                    tensors[f"adapter.{number}.{module}.a"],
                    tensors[f"adapter.{number}.{module}.b"],
                    scale,
                )
                for module, scale in row["scales"].items()
            },
        )
        for number, row in enumerate(head["adapters"])
    )
    return adapters, dict(head["weights"])


# Adapters that PEFT made --------------------------------------------------------------------

_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])"
                  r"(?:\.(?P<adapter>[^.]+))?\.weight$")  # fmt: skip
_OTHER_ALGEBRA = ("use_dora", "lora_bias", "modules_to_save", "trainable_token_indices",
                  "target_parameters", "alora_invocation_tokens", "layer_replication")  # fmt: skip
_MOVES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


def from_peft(
    source: str | Path | Mapping[str, torch.Tensor], *, name: str, config: Any = None
) -> Adapter:
    """Read a LoRA adapter that PEFT wrote; PEFT itself is not needed.

    Args:
        source: a folder with `adapter_config.json` and `adapter_model.safetensors`, or a state
            dict of one adapter (`get_peft_model_state_dict`, or the model's own).
        name: the value it stands for.
        config: `LoraConfig` or a mapping, for a state dict; folders bring theirs.

    Raises:
        AdapterError: nothing there, damaged, or an adapter that is more than scale * B @ A
            (DoRA, biases, whole modules, embeddings, an initialisation that moves the base
            model); the message names which.
    """
    if isinstance(source, str | Path):
        state, settings = _read_folder(Path(source))
    else:
        if config is None:
            raise AdapterError("A state dict does not say its alpha; pass config=LoraConfig(...).")
        state = dict(source)
        plain = is_dataclass(config) and not isinstance(config, type)
        settings = asdict(config) if plain else dict(config)
    _require_plain(settings, name)
    sides: dict[str, dict[str, torch.Tensor]] = {}
    owners = set()
    for key, tensor in state.items():
        match = _KEY.match(key)
        if match is None:
            if "lora_" not in key and "modules_to_save" not in key:
                continue  # a state dict of the whole model holds its own weights too
            raise AdapterError(
                f"{name} holds {key}, which is no LoRA factor of a linear module. Train with "
                "lora_A and lora_B on linear modules alone."
            )
        owners.add(match["adapter"])
        sides.setdefault(match["module"], {})[match["side"]] = tensor.detach().clone()
    if len(owners) > 1:
        raise AdapterError(
            f"This state dict holds several adapters ({', '.join(sorted(map(str, owners)))}); take "
            "one with peft.get_peft_model_state_dict(model, adapter_name=...)."
        )
    factors = {}
    for module, pair in sides.items():
        if set(pair) != {"A", "B"}:
            raise AdapterError(f"{name} holds only lora_{''.join(pair)} of {module}.")
        factors[module] = LowRank(pair["A"], pair["B"], _scale(settings, module, len(pair["A"])))
    if not factors:
        raise AdapterError(f"{name} holds no lora_A and lora_B tensors.")
    return Adapter(name, factors)


def _read_folder(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    weights, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    for path in (weights, settings):
        if not path.is_file():
            raise AdapterError(
                f"No {path.name} in {folder}. Expected a folder written by PEFT's save_pretrained "
                "with safetensors."
            )
    try:
        return load_file(weights), json.loads(settings.read_text("utf-8"))
    except (SafetensorError, ValueError, OSError) as error:
        raise AdapterError(f"The adapter in {folder} is damaged: {error}") from None


def _require_plain(settings: Mapping[str, Any], name: str) -> None:
    kind = getattr(settings.get("peft_type"), "value", settings.get("peft_type", "LORA"))
    if str(kind) != "LORA":
        raise AdapterError(f"{name} is a {kind} adapter; only LORA is a sum of s B A.")
    if settings.get("bias", "none") != "none":
        raise AdapterError(f"{name} trains biases (bias={settings['bias']!r}); use bias='none'.")
    for setting in _OTHER_ALGEBRA:
        if settings.get(setting):
            raise AdapterError(
                f"{name} was made with {setting}={settings[setting]!r}, which is more than s B A. "
                "Train it without."
            )
    start = str(settings.get("init_lora_weights", True)).lower()
    if start.startswith(_MOVES_THE_BASE):
        raise AdapterError(
            f"{name} began from {start!r}, which changes the base model's own weights. Convert it "
            "with save_pretrained(path_initial_model_for_weight_conversion=...) first."
        )


def _scale(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r of one module, as PEFT looks it up."""
    alpha = settings.get("lora_alpha", 8)
    for pattern, own in (settings.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            alpha = own
            break
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
