"""Prompts as the model wants them: chat template where there is one, plain text where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from valign.corpora.types import Message


@dataclass(frozen=True)
class Verbatim:
    """Tokens to go on from as they are: no chat template, no special tokens of its own."""

    ids: tuple[int, ...]


Prompt = str | Sequence[Message] | Verbatim
"""A user's question, a whole conversation that waits for the assistant, or bare tokens."""


def render(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, instruction: str | None = None
) -> str:
    """The text the model continues.

    `instruction` becomes the system message (before one that is already there). Templates
    without a system role get it at the head of the first user message; models without a chat
    template get plain paragraphs.
    """
    if isinstance(prompt, Verbatim):
        return tokenizer.decode(prompt.ids)
    messages = [dict(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
    if tokenizer.chat_template is None:
        parts = [instruction] if instruction else []
        return "\n\n".join(parts + [m["content"] for m in messages]) + "\n"
    if instruction:
        if messages and messages[0]["role"] == "system":
            merged = f"{instruction}\n\n{messages[0]['content']}"
            with_system = [dict(role="system", content=merged), *messages[1:]]
        else:
            with_system = [dict(role="system", content=instruction), *messages]
        try:
            text = _apply(tokenizer, with_system)
            if instruction.strip() in text:
                return text
        except TemplateError:  # the template refuses a system role (Gemma's), others drop it
            pass
        first = dict(messages[0])
        first["content"] = f"{instruction}\n\n{first['content']}"
        messages = [first, *messages[1:]]
    return _apply(tokenizer, messages)


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, templated: bool) -> list[int]:
    """Token ids; a chat template has already written the special tokens."""
    return tokenizer(text, add_special_tokens=not templated)["input_ids"]
