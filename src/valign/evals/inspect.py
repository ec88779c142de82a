"""A model provider for Inspect (UK AI Security Institute) that runs under any control.

    inspect eval TASK --model valign/PATH -M control=FILE

PATH is a model's folder or Hub name, or `reference`. Samples that wait at the same time are
answered in one batch; neither the batch nor the order changes an answer. What was applied stands
in the log: the receipt is the metadata of every answer.
"""

from __future__ import annotations

import queue
import threading
import zlib
from collections import Counter
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from valign.control import load
from valign.corpora.types import Message
from valign.evals.errors import EvalError
from valign.lm import generate
from valign.lm.kinds import check

_REFUSED: dict[str, Any] = {
    "num_choices": 1, "best_of": 1, "logprobs": False, "top_logprobs": 0, "prompt_logprobs": None,
    "logit_bias": {}, "top_k": 0, "frequency_penalty": 0.0, "presence_penalty": 0.0,
    "response_schema": None,
}  # fmt: skip
"""Options that would go unheard -> the value, beside None, with which there is nothing to hear."""

_ENDS = ("control", "strength", "dtype", "batch_size", "trust_remote_code")


@modelapi("valign")
def valign() -> type[ModelAPI]:
    """The provider that Inspect finds through its entry point."""
    return ValignAPI


class ValignAPI(ModelAPI):
    """A host model, steered or not.

    Args:
        model_name: folder, Hub name or `reference`.
        control: file or folder of a control (`-M control=FILE`).
        strength: times its own strength.
        dtype: of the model; `auto`, `float32`, ...
        batch_size: samples answered together, at most.
        trust_remote_code: run the Python code that comes with the model.

    Raises:
        EvalError: an argument there is not.
        UnsupportedSiteError: a control the model cannot run.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        *,
        control: str | None = None,
        strength: float = 1.0,
        dtype: str = "auto",
        batch_size: int = 16,
        trust_remote_code: bool = False,
        **unknown: Any,
    ):
        config = config or GenerateConfig()
        super().__init__(model_name, base_url=base_url, api_key=api_key, config=config)
        if unknown:
            raise EvalError(
                f"No model argument {', '.join(sorted(unknown))}. There are: {', '.join(_ENDS)}."
            )
        from valign.study.loading import load_model

        self.lm = load_model(model_name, dtype, trust_remote_code=trust_remote_code)
        self.control = None if control is None else load(Path(control).expanduser())
        if self.control is not None:
            if strength != 1.0:
                self.control = self.control.scaled(float(strength))
            check(self.lm, self.control)
        self.batch_size = int(batch_size)
        self._asked: Counter[int] = Counter()
        self._waiting: queue.Queue[_Asked | None] = queue.Queue()
        self._worker: threading.Thread | None = None
        self._starting = threading.Lock()

    def max_connections(self) -> int:
        return self.batch_size

    def max_tokens(self) -> int:
        return 512

    def close(self) -> None:
        """End the thread that answers."""
        if self._worker is not None:
            self._waiting.put(None)
            self._worker.join()
            self._worker = None

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one conversation; greedy where no temperature is asked for.

        Raises:
            EvalError: tools, or an option that would be left unheard.
        """
        if tools:
            raise EvalError("This model calls no tools. Choose a task without tools.")
        given = {name: getattr(config, name, None) for name in _REFUSED}
        unheard = [name for name, x in given.items() if x is not None and x != _REFUSED[name]]
        if unheard:
            raise EvalError(f"valign does not know {', '.join(unheard)}; leave it out.")
        prompt = [_plain(message) for message in input]
        # Asked again (epochs), a conversation gets another seed, whatever else was asked between.
        key = zlib.crc32(repr((config.seed or 0, prompt)).encode())
        self._asked[key] += 1
        asked = _Asked(
            prompt=prompt,
            seed=(key + self._asked[key]) & 0x7FFFFFFF,
            options=(
                config.max_tokens or self.max_tokens(),
                config.temperature or 0.0,
                1.0 if config.top_p is None else config.top_p,
                tuple(config.stop_seqs or ()),
            ),
        )
        with self._starting:
            if self._worker is None:
                self._worker = threading.Thread(target=self._answer_all, daemon=True)
                self._worker.start()
        self._waiting.put(asked)
        return await anyio.to_thread.run_sync(asked.output.result, abandon_on_cancel=True)

    def _answer_all(self) -> None:
        """Answer whatever waits, those with the same options together."""
        while (first := self._waiting.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < self.batch_size and not last:
                try:
                    other = self._waiting.get(timeout=0.02)
                except queue.Empty:
                    break
                last = other is None
                if other is not None:
                    batch.append(other)
            for options in dict.fromkeys(asked.options for asked in batch):
                self._answer([asked for asked in batch if asked.options == options])
            if last:
                return

    def _answer(self, batch: list[_Asked]) -> None:
        length, temperature, top_p, stop = batch[0].options
        try:
            said = generate(
                self.lm, [asked.prompt for asked in batch], self.control, max_new_tokens=length,
                temperature=temperature, top_p=top_p, stop=stop,
                seed=[asked.seed for asked in batch], batch_size=self.batch_size,
            )  # fmt: skip
        except Exception as error:
            if len(batch) == 1:
                batch[0].output.set_exception(error)
                return
            for asked in batch:  # one sample's error is not its neighbours'
                self._answer([asked])
            return
        for row, asked in enumerate(batch):
            made = len(said.token_ids[row])
            asked.output.set_result(
                ModelOutput(
                    model=self.model_name,
                    choices=[
                        ChatCompletionChoice(
                            message=ChatMessageAssistant(
                                content=said.texts[row], model=self.model_name, source="generate"
                            ),
                            stop_reason="stop" if said.finished[row] else "max_tokens",
                        )
                    ],
                    usage=ModelUsage(
                        input_tokens=said.prompt_tokens[row],
                        output_tokens=made,
                        total_tokens=said.prompt_tokens[row] + made,
                    ),
                    metadata=dict(receipt=asdict(said.receipts[row])),
                )
            )


@dataclass(eq=False)
class _Asked:
    """A conversation that waits for its answer; options are length, temperature, top_p, stops."""

    prompt: list[Message]
    seed: int
    options: tuple[int, float, float, tuple[str, ...]]
    output: Future[ModelOutput] = field(default_factory=Future)


def _plain(message: ChatMessage) -> Message:
    if message.role == "tool":
        raise EvalError("The conversation holds a tool's answer; this model calls no tools.")
    return {"role": message.role, "content": message.text}
