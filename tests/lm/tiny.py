"""Tiny random models of every family, with a tokenizer made on the spot; nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from valign.lm import HostModel

WORDS = """the a help friend family rule safe win power joy trip custom world nature care money
I you we they should can will would keep take give stay go work rest try follow lead share one two
three day week home school team and or but because not more less very ? . ,""".split()

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)

_SIZE = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256,
    vocab_size=96, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
_GATED = dict(**_SIZE, intermediate_size=64, num_key_value_heads=2, head_dim=8)

FAMILIES: dict[str, dict] = {
    "llama": _GATED,
    "mistral": dict(**_GATED, sliding_window=None),
    "qwen2": {k: v for k, v in _GATED.items() if k != "head_dim"},
    "qwen3": _GATED,
    "gemma2": dict(**_GATED, sliding_window=16),
    "gemma3_text": dict(**_GATED, sliding_window=16),
    "phi3": {k: v for k, v in _GATED.items() if k != "head_dim"},
    "gpt2": dict(n_embd=32, n_layer=3, n_head=4, n_positions=256, vocab_size=96, bos_token_id=1,
                 eos_token_id=2, pad_token_id=0),
    "gpt_neox": dict(**_SIZE, intermediate_size=64),
    "opt": dict(**_SIZE, ffn_dim=64, word_embed_proj_dim=32),
    "olmo2": {k: v for k, v in _GATED.items() if k != "head_dim"},
    "mixtral": dict(**_GATED, num_local_experts=4, num_experts_per_tok=2),
}  # fmt: skip

DENSE = [name for name in FAMILIES if name != "mixtral"]


@lru_cache(maxsize=1)
def _vocabulary() -> Tokenizer:
    special = ["<pad>", "<s>", "</s>", "<unk>", "<system>", "<user>", "<assistant>"]
    words = special + list(dict.fromkeys(WORDS))
    words += [f"w{i}" for i in range(96 - len(words))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def tiny_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of 96 words, with or without a chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_vocabulary(), bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def tiny_lm(
    family: str = "llama",
    *,
    chat: bool = True,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **overrides,
) -> HostModel:
    """A random model of a family, 3 layers, width 32."""  # fmt: skip
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**FAMILIES[family], **overrides})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # default initialisation is so small that nothing has any effect
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return HostModel(model.to(dtype), tiny_tokenizer(chat=chat), name=f"tiny-{family}")


PROMPTS = [
    "should I help the friend or win ?",
    "rest or work ?",
    "the family will go on a trip because they care , should we stay home or go ?",
    "more money or less work this week ?",
]
