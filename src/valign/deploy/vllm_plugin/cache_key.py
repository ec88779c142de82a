"""Steering in the block hash: vLLM shares blocks of its prefix cache by hash.

Keys and values that were computed under a profile are another thing than those of the plain
model, so a steered block carries the profile in its hash. Edits of scope `generation` leave the
prompt up to its last token as it is: those blocks stay shared with everybody. From there on the
prompt's length counts too, because the same tokens inside a longer prompt would not be edited.
"""

from __future__ import annotations

from functools import wraps
from typing import Any

from valign.deploy.vllm_plugin.request import KEY, PLAIN, Mix

_TAG = "valign"


def install() -> None:
    """Wrap vLLM's generator of extra keys, once."""
    from vllm.v1.core import kv_cache_utils

    original = kv_cache_utils.generate_block_hash_extra_keys
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def generate_block_hash_extra_keys(
        request: Any, start_token_idx: int, end_token_idx: int, start_mm_idx: int
    ) -> tuple[tuple[Any, ...] | None, int]:
        keys, mm_idx = original(request, start_token_idx, end_token_idx, start_mm_idx)
        params = request.sampling_params
        if params is None or not params.extra_args or KEY not in params.extra_args:
            return keys, mm_idx
        own = block_key(_mix_of(params), request.num_prompt_tokens, end_token_idx)
        return (keys if own is None else (*(keys or ()), (_TAG, own))), mm_idx

    kv_cache_utils.generate_block_hash_extra_keys = generate_block_hash_extra_keys


def block_key(mix: Mix, prompt: int, end: int) -> str | None:
    """What tells a block of a request from others with the same tokens.

    Args:
        prompt: tokens of the request's prompt.
        end: first token after the block.

    Returns:
        None where the block holds what the plain model computes.
    """
    reaches_answer = end >= prompt  # holds the last prompt token, at prompt - 1, or later ones
    if mix.answer and reaches_answer:
        return f"{mix.key}@{prompt}"
    return mix.key if mix.prompt else None


def _mix_of(params: Any) -> Mix:
    from valign.deploy.vllm_plugin.active import active_catalog

    return active_catalog().mix(params.extra_args) or PLAIN
