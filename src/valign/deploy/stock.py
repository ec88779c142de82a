"""Checkpoints with room for a constant: biases on projections whose family has none.

A family whose configuration has a switch (`mlp_bias`, `attention_bias`) is switched on. Qwen2,
Mistral and Gemma have none for the MLP, but each computes what a Llama with the right numbers
computes, so their weights are written as one:

    Qwen2    biases on q, k, v are Llama's `attention_bias` (a zero bias on o)
    Mistral  as it is
    Gemma    norms hold w where Llama holds 1 + w; the embedding is multiplied by sqrt(width)

Only the stock model classes of transformers are written: no code travels with a checkpoint.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, PretrainedConfig, PreTrainedModel

from valign.deploy.errors import ExportError

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What is written: a configuration and weights by name, biases (still zero) included.

    `architecture` names the model class; `rewritten` is True where it is not the model's own.
    """

    config: PretrainedConfig
    weights: Weights
    architecture: str
    rewritten: bool = False


def with_biases(model: PreTrainedModel, names: list[str]) -> Checkpoint:
    """A checkpoint of the model whose linear maps `names` have a bias.

    Raises:
        ExportError: no stock class computes the same function with those biases.
    """
    weights = dict(model.state_dict())
    missing = [name for name in names if f"{name}.bias" not in weights]
    if not missing:
        return Checkpoint(model.config, weights, type(model).__name__)
    mlp = [name for name in missing if ".mlp." in name]
    attention = [name for name in missing if "attn." in name]
    for name in set(missing).difference(mlp, attention):
        raise _refusal(model, name)
    return _switched(
        model, weights, missing, mlp=bool(mlp), attention=bool(attention)
    ) or _as_llama(model, weights, missing[0], mlp=bool(mlp), attention=bool(attention))


def _switched(
    model: PreTrainedModel, weights: Weights, names: list[str], *, mlp: bool, attention: bool
) -> Checkpoint | None:
    """The model's own class with its bias switches on; None where it lacks one."""
    config = copy.deepcopy(model.config)
    for wanted, switch in ((mlp, "mlp_bias"), (attention, "attention_bias")):
        if wanted and getattr(config, switch, None) is not False:
            return None
        if wanted:
            setattr(config, switch, True)
    with torch.device("meta"):
        shaped = type(model)(config)
    expected = {k: v.shape for k, v in shaped.state_dict().items()}
    if any(f"{name}.bias" not in expected for name in names):
        return None  # a switch in the configuration that the class does not read
    weights = _with_zero_biases(weights, expected, model.dtype)
    return Checkpoint(config, weights, type(model).__name__)


def _with_zero_biases(
    weights: Weights, expected: dict[str, torch.Size], dtype: torch.dtype
) -> Weights:
    new = {name: shape for name, shape in expected.items() if name not in weights}
    wrong = [name for name in new if not name.endswith(".bias")]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        raise ExportError(f"The rewritten checkpoint would differ in {wrong[0]}; export refused.")
    return weights | {name: torch.zeros(shape, dtype=dtype) for name, shape in new.items()}


def _as_llama(
    model: PreTrainedModel, weights: Weights, name: str, *, mlp: bool, attention: bool
) -> Checkpoint:
    """The same function as a Llama checkpoint, with the biases Llama has."""
    from transformers import LlamaForCausalLM

    old = model.config
    family = old.model_type
    sliding = any(kind != "full_attention" for kind in getattr(old, "layer_types", None) or ())
    window = getattr(old, "sliding_window", None)
    if family == "mistral" and window is not None and window < old.max_position_embeddings:
        sliding = True
    if family not in ("qwen2", "mistral", "gemma"):
        raise _refusal(model, name)
    if sliding:
        raise _refusal(model, name, " (its sliding window is not Llama's)")
    gemma = family == "gemma"
    config = LlamaConfig(
        **{key: getattr(old, key) for key in _SHARED if hasattr(old, key)},
        tie_word_embeddings=False if gemma else old.tie_word_embeddings,
        head_dim=getattr(old, "head_dim", None) or old.hidden_size // old.num_attention_heads,
        hidden_act=getattr(old, "hidden_activation", None) or old.hidden_act,
        attention_bias=attention or family == "qwen2" or bool(getattr(old, "attention_bias", 0)),
        mlp_bias=mlp,
        dtype=old.dtype,
    )
    if gemma:
        # In the model's own arithmetic: Gemma rounds both numbers to its type.
        root = torch.tensor(old.hidden_size**0.5, dtype=model.dtype)
        weights = {k: v + 1 if k.endswith("norm.weight") else v for k, v in weights.items()}
        embedding = weights["model.embed_tokens.weight"]
        weights["lm_head.weight"] = weights.get("lm_head.weight", embedding).clone()
        weights["model.embed_tokens.weight"] = embedding * root.to(embedding.device)
    with torch.device("meta"):
        shaped = LlamaForCausalLM(config)
    expected = {k: v.shape for k, v in shaped.state_dict().items()}
    weights = _with_zero_biases(weights, expected, model.dtype)
    return Checkpoint(config, weights, LlamaForCausalLM.__name__, rewritten=True)


_SHARED = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
num_key_value_heads max_position_embeddings initializer_range rms_norm_eps use_cache pad_token_id
bos_token_id eos_token_id rope_parameters attention_dropout""".split()


def _refusal(model: PreTrainedModel, name: str, why: str = "") -> ExportError:
    return ExportError(
        f"{type(model).__name__} has no bias on {name}{why}, and no stock model class computes "
        "the same with one, so the constant this control adds cannot be folded. Use --to peft (a "
        "LoRA whose B has a bias), or --to vllm."
    )
