"""Lets a model answer the world's prompts, in batches, greedily or by sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .items import Item

MAX_NEW_TOKENS = 110


@torch.inference_mode()
def replies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    *,
    sample: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[str]:
    """Answers in the order of the items.

    Args:
        model: any causal language model.
        tokenizer: its tokenizer, with a chat template.
        items: what to answer.
        sample: draw at temperature 1 instead of greedily.
        seed: for sampling.
        batch_size: rows generated together; prompts of like length share a batch.
        max_new_tokens: longest answer.
    """
    torch.manual_seed(seed)
    prompts = [
        tokenizer.apply_chat_template(
            i.messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for i in items
    ]
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    out = [""] * len(items)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [prompts[i] for i in rows]}, padding_side="left", return_tensors="pt"
        )
        made = model.generate(
            **batch.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=sample,
            **({"top_k": 0} if sample else {}),
            pad_token_id=tokenizer.pad_token_id,
        )
        new = made[:, batch["input_ids"].shape[1] :]
        for i, text in zip(
            rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
        ):
            out[i] = text.strip()
    return out
