"""A model for lm-eval (EleutherAI's evaluation harness) that runs under any control.

    from valign.evals.harness import ValignLM
    lm_eval.simple_evaluate(model=ValignLM(lm, control), tasks=[...])

or, from a shell, with every option of `lm_eval`:

    python -m valign.evals.harness run --model valign
        --model_args pretrained=PATH,control=FILE --tasks mmlu

Text is tokenised as the harness's own `hf` model does it, so that without a control both give the
same numbers (in texts longer than the context, with windows one token shorter). What counts as the
prompt: of a scored continuation its context, of a perplexity the first token alone, so that a
control acts on all of the text. An instruction (a `text` control) goes before the context as a
paragraph, or into the system message where the harness applies the chat template.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows

from valign.control import Control, RewriteControl, TextControl, load
from valign.evals.errors import EvalError
from valign.lm import HostModel, generate
from valign.lm.kinds import check
from valign.lm.render import Verbatim
from valign.lm.score import answer_logits

Request = tuple[tuple[str, str], list[int], list[int]]
"""((context, continuation), tokens of the context, tokens of the continuation)."""


@register_model("valign")
class ValignLM(TemplateLM):
    """A host model, steered or not.

    Args:
        pretrained: a host model, or what `HostModel.load` takes.
        control: a control, its file, or None for the plain model.
        batch_size: rows per pass; changes no number.
        max_gen_toks: tokens of an answer where a task does not say.
        dtype, device: for `HostModel.load`.

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
    ):
        super().__init__()
        given = isinstance(pretrained, HostModel)
        self.lm = pretrained if given else HostModel.load(pretrained, dtype=dtype, device=device)
        self.control = load(Path(control)) if isinstance(control, str) else control
        if self.control is not None:
            check(self.lm, self.control)
            if isinstance(self.control, RewriteControl):
                raise EvalError(
                    "A control that rewrites answers acts on what was said, not on what is likely. "
                    "Test it with Inspect: valign.evals.inspect."
                )
        instruction = isinstance(self.control, TextControl) and self.control.instruction
        self._instruction: str = instruction or ""
        self._acting = None if isinstance(self.control, TextControl) else self.control
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
        begin = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else int(begin)

    @property
    def max_length(self) -> int:
        """Longest sequence in tokens; 2048 where the model does not say."""
        return self.lm.context_length if self.lm.context_length < 10**9 else 2048

    @property
    def tokenizer_name(self) -> str:
        return self.lm.name.replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        begin = self.tokenizer.bos_token
        if add_special_tokens is None:
            add_special_tokens = not (begin and string.startswith(begin))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

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

    def _before(self, context: str) -> str:
        """The context, with the instruction where the chat template has not put it."""
        if not self._instruction or self._instruction in context:
            return context
        return f"{self._instruction}\n\n{context}"

    # What is asked ----------------------------------------------------------------------

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        if self._instruction:
            requests = [
                Instance(r.request_type, r.doc, (self._before(r.args[0]), r.args[1]), r.idx)
                for r in requests
            ]
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """(sum of log-probabilities, is it what greedy decoding says) of each continuation.

        Continuations that differ in their last token alone, as the letters of a question do,
        share a pass.
        """
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        rows: list[tuple[list[int], list[int]]] = []
        for number, (_, context, continuation) in enumerate(requests):
            if not context or not continuation:
                raise EvalError(f"Request {number} has no context or nothing to score.")
            room = self.max_length - len(continuation)
            if room < 1:
                raise EvalError(
                    f"A continuation of {len(continuation)} tokens does not fit {self.lm.name}, "
                    f"which takes {self.max_length}."
                )
            rows.append((context[-room:], continuation))
            alike[(len(context[-room:]), *context[-room:], *continuation[:-1])].append(number)
        groups = list(alike.values())
        found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)

        def score(group: int, logits: torch.Tensor, targets: torch.Tensor) -> None:
            logp, best = logits.log_softmax(-1), logits.argmax(-1)
            for number in groups[group]:
                ids = torch.tensor(rows[number][1]).to(best)
                own = logp.gather(1, ids[:, None])[:, 0]
                found[number] = float(own.sum()), bool((best == ids).all())

        first = [rows[group[0]] for group in groups]
        self._run([context for context, _ in first], [answer for _, answer in first], score)
        return found

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        heads, tails, owner, counted = [], [], [], []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length - 1,
                context_len=1,
            )  # fmt: skip
            for context, predicted in windows:
                row = [*context, predicted[-1]]
                heads.append(row[:1])
                tails.append(row[1:])
                owner.append(number)
                counted.append(len(predicted))
        found = [0.0] * len(requests)

        def score(row: int, logits: torch.Tensor, targets: torch.Tensor) -> None:
            logp = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
            found[owner[row]] += float(logp[-counted[row] :].double().sum())

        self._run(heads, tails, score)
        return found

    def _run(self, heads: Sequence[list[int]], tails: Sequence[list[int]], score: Any) -> None:
        prompts = [Verbatim(tuple(head)) for head in heads]
        answer_logits(self.lm, prompts, tails, self._acting, score, self.batch_size)

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
            prompts = [
                Verbatim(tuple(self.tok_encode(self._before(requests[i].args[0]))[-room:]))
                for i in numbers
            ]
            said = generate(
                self.lm, prompts, self._acting, max_new_tokens=length, stop=stop,
                temperature=temperature, top_p=top_p, seed=numbers, batch_size=self.batch_size,
            )  # fmt: skip
            for i, text in zip(numbers, said.texts, strict=True):
                found[i] = text
        return found


def main() -> None:
    """`lm_eval` with `--model valign` known to it."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
