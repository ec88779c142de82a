"""A model for lm-eval (EleutherAI's evaluation harness) that runs under any control.

    from valign.evals.harness import ValignLM
    lm_eval.simple_evaluate(model=ValignLM(lm, control), tasks=[...])

or, from a shell, with every option of `lm_eval`:

    python -m valign.evals.harness run --model valign
        --model_args pretrained=PATH,control=FILE --tasks mmlu

Text is tokenised as the harness's own `hf` model does it, so that without a control both give the
same numbers (in texts longer than the context, with windows one token shorter). What a control
takes as the prompt: see `valign.evals.likelihood`. An instruction (a `text` control) goes before
the context as a paragraph, or into the system message where the harness applies the chat template,
and stays there when a context that is too long loses its beginning; perplexities have no place for
one, and are refused.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from valign.control import Control, load
from valign.evals.errors import EvalError
from valign.evals.likelihood import (
    continuations,
    encode_bare,
    first_token,
    fitted,
    instructed_pairs,
    led,
    longest,
    refuse_instruction,
    split_instruction,
    whole_texts,
)
from valign.lm import HostModel, generate
from valign.lm.kinds import check
from valign.lm.render import Verbatim


@register_model("valign")
class ValignLM(TemplateLM):
    """A host model, steered or not.

    Args:
        pretrained: a host model, or what `HostModel.load` takes.
        control: a control, its file, or None for the plain model.
        batch_size: rows per pass; changes no number.
        max_gen_toks: tokens of an answer where a task does not say.
        dtype, device, trust_remote_code: for `HostModel.load`.

    Raises:
        EvalError: a control that rewrites answers, which has no log-probabilities.
        UnsupportedSiteError: a control the model cannot run.
    """

    def __init__(
        self,
        pretrained: HostModel | str,
        control: Control | str | None = None,
        *,
        batch_size: int | str = 16,
        max_batch_size: int | None = None,
        max_gen_toks: int = 256,
        dtype: str = "auto",
        device: str | None = None,
        trust_remote_code: bool = False,
    ):
        super().__init__()
        if isinstance(pretrained, str):
            pretrained = HostModel.load(
                pretrained, dtype=dtype, device=device, trust_remote_code=trust_remote_code
            )
        self.lm = pretrained
        self.control = load(Path(control)) if isinstance(control, str) else control
        self._instruction, self._acting = split_instruction(self.control)
        if self.control is not None:
            check(self.lm, self.control)
        self.batch_size = int(batch_size) if str(batch_size).isdigit() else 16
        self.max_gen_toks = max_gen_toks
        self.tokenizer = self.lm.tokenizer
        self._device = self.lm.device

    # How text becomes tokens ------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return first_token(self.lm)

    @property
    def max_length(self) -> int:
        return longest(self.lm)

    @property
    def tokenizer_name(self) -> str:
        return self.lm.name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        return encode_bare(self.lm, string, special=add_special_tokens)

    def chat_template(self, chat_template: bool | str = False) -> str:
        return (self.tokenizer.chat_template or "") if chat_template else ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        if add_generation_prompt:
            return self.lm.render(chat_history, self._instruction or None)
        if self._instruction:
            raise EvalError(
                "An instruction with a prefilled answer: this task writes the beginning of the "
                "answer, and chat templates have no word for that. Use a control of edits."
            )
        return str(
            self.tokenizer.apply_chat_template(
                chat_history, tokenize=False, continue_final_message=True
            )
        )

    # What is asked ----------------------------------------------------------------------

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        pairs = instructed_pairs(self.lm, [r.args for r in requests], self._instruction)
        return continuations(self.lm, pairs, self._acting, batch_size=self.batch_size)

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        return continuations(self.lm, pairs, self._acting, batch_size=self.batch_size)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        refuse_instruction(self.control)
        texts = [encode_bare(self.lm, r.args[0], special=False) for r in requests]
        return whole_texts(self.lm, texts, self._acting, batch_size=self.batch_size)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        kinds: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            options = normalize_gen_kwargs(dict(request.args[1]), self.max_gen_toks)
            until = options.get("until") or []
            stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
            kinds[
                (
                    int(options["max_gen_toks"]),
                    stop,
                    float(options.get("temperature") or 0.0),
                    float(options.get("top_p") or 1.0),
                )
            ].append(number)
        found = [""] * len(requests)
        for (length, stop, temperature, top_p), numbers in kinds.items():
            room = self.max_length - length
            if room < 1:
                raise EvalError(
                    f"Answers of {length} tokens leave no room for a question: {self.lm.name} "
                    f"takes {self.max_length}. Ask for shorter ones, --gen_kwargs max_gen_toks=..."
                )
            prompts = [self._prompt(requests[i].args[0], room) for i in numbers]
            said = generate(
                self.lm, prompts, self._acting, max_new_tokens=length, stop=stop,
                temperature=temperature, top_p=top_p, seed=numbers, batch_size=self.batch_size,
            )  # fmt: skip
            for i, text in zip(numbers, said.texts, strict=True):
                found[i] = text
        return found

    def _prompt(self, context: str, room: int) -> Verbatim:
        text = led(self._instruction, context)
        ids = fitted(self.lm, text, self.tok_encode(text), room, self._instruction)
        return Verbatim(tuple(ids))


def main() -> None:
    """`lm_eval` with `--model valign` known to it."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
