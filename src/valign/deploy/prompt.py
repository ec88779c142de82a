"""Prompts: an instruction as the messages any chat API takes.

`messages.json` is a conversation in which `{prompt}`, as the end of the last message, stands for
what the user says. Where the model's chat template has no system role, the instruction stands
before the user's words, as it does when valign generates.
"""

from __future__ import annotations

import json
from pathlib import Path

from valign.control.control import Control, TextControl
from valign.deploy.certificate import Runner, answer_logits
from valign.deploy.errors import ExportError
from valign.lm import HostModel
from valign.lm.render import Prompt, encode

TO = "prompt"
READ_BY = "messages.json, rendered by the tokenizer's chat template"
HOLE = "{prompt}"
TEXT, MESSAGES = "system_prompt.txt", "messages.json"


def write(lm: HostModel, control: Control, folder: Path) -> None:
    """Write `system_prompt.txt` and `messages.json`.

    Raises:
        ExportError: a control that is not made of words.
    """
    if not isinstance(control, TextControl):
        raise ExportError(
            f"A {control.kind} control is no instruction, so it cannot be exported to prompt. "
            "Fit the `prompt` method for one, or use --to vllm, folded, peft or gguf."
        )
    (folder / TEXT).write_text(control.instruction + "\n", "utf-8")
    messages = _messages(lm, control.instruction)
    (folder / MESSAGES).write_text(
        json.dumps({"messages": messages}, ensure_ascii=False, indent=1) + "\n", "utf-8"
    )


def _messages(lm: HostModel, instruction: str) -> list[dict[str, str]]:
    system = [dict(role="system", content=instruction), dict(role="user", content=HOLE)]
    merged = [dict(role="user", content=f"{instruction}\n\n{HOLE}")]
    if lm.tokenizer.chat_template is None:
        return merged
    wanted = lm.render(HOLE, instruction)
    for messages in (system, merged):
        try:
            if lm.render(messages) == wanted:
                return messages
        except Exception:  # a template that refuses a system role; each raises as it likes
            continue
    raise ExportError(
        "The chat template puts the instruction neither into a system message nor before the "
        "user's words; send lm.render(prompt, instruction) as plain text instead."
    )


def filled(messages: list[dict[str, str]], prompt: str) -> list[dict[str, str]]:
    """The conversation with a user's words in place."""
    *before, last = messages
    return [*before, {**last, "content": last["content"].removesuffix(HOLE) + prompt}]


def run(lm: HostModel, folder: Path) -> Runner:
    """The messages as read back from the file, on the plain model."""
    messages = json.loads((folder / MESSAGES).read_text("utf-8"))["messages"]

    def logits(prompt: Prompt, answer: list[int]):
        if not isinstance(prompt, str):
            raise ExportError("The prompt export is checked on single questions, not on dialogues.")
        text = lm.render(filled(messages, prompt))
        templated = lm.tokenizer.chat_template is not None
        head = encode(lm.tokenizer, text, templated=templated)
        return answer_logits(lm.model, head, answer, lm.device)

    return logits
