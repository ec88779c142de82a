"""Generation with one control per row.

Valign keeps its own short decoding loop, because rows of one batch may be steered differently,
because a row's text must not depend on its neighbours, and because every row gets a receipt.
The model's forward, its cache and its chat template are transformers'.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from valign.control.control import Control, TextControl
from valign.control.rewrite import RewriteControl
from valign.lm.errors import ModelLoadError, UnsupportedSiteError
from valign.lm.host import HostModel
from valign.lm.kinds import batches, check, open_session
from valign.lm.receipt import Receipt
from valign.lm.render import Prompt
from valign.lm.rewriting import rewrite_rows, rewriter_of
from valign.lm.sampling import Sampler
from valign.lm.steer import Controls

OnToken = Callable[[int, str], None]
"""Called with (row, text so far) after every token of that row."""


@dataclass(frozen=True)
class Generation:
    """Answers in the order of the prompts.

    Attributes:
        texts: decoded answers without special tokens.
        token_ids: their tokens, without the one that ended them.
        receipts: what was really applied, one per row.
        prompt_tokens: prompt length per row.
        finished: whether the row ended by itself rather than at `max_new_tokens`.
    """

    texts: list[str]
    token_ids: list[list[int]]
    receipts: list[Receipt]
    prompt_tokens: list[int]
    finished: list[bool]


def generate(
    lm: HostModel,
    prompts: Sequence[Prompt],
    control: Controls = None,
    *,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | Sequence[int] = 0,
    batch_size: int = 32,
    stop: Sequence[str] = (),
    on_token: OnToken | None = None,
) -> Generation:
    """Answer prompts, each row under its own control.

    Args:
        lm: the host model.
        prompts: questions or conversations.
        control: None, one control for all rows, or a list with one (or None) per row.
        max_new_tokens: most tokens of an answer.
        temperature: 0 is greedy.
        top_p: nucleus.
        seed: row i samples with (seed, i); or one seed per row.
        batch_size: rows per batch; does not change any row's text.
        stop: an answer ends before the first of these; `token_ids` holds it still.
        on_token: for streaming.

    Raises:
        PromptTooLongError: a prompt that leaves no room for the answer; before any token is made.
        UnsupportedSiteError: a control this model cannot run; before any token is made.
        NestedControlError: the model already runs under a control.
    """
    if isinstance(prompts, str):
        raise TypeError("`prompts` is a list; for one prompt write generate(lm, [prompt]).")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens}: an answer has at least one token.")
    controls = per_row(control, len(prompts))
    if isinstance(seed, int):
        seeds = [hash((seed, i)) & 0x7FFFFFFF for i in range(len(prompts))]
    elif len(seed) == len(prompts):
        seeds = list(seed)
    else:
        raise ValueError(f"{len(seed)} seeds were given for {len(prompts)} prompts.")
    rows = [
        lm.encode_prompt(p, c.instruction if isinstance(c, TextControl) else None)
        for p, c in zip(prompts, controls, strict=True)
    ]
    lm.check_length(rows, max_new_tokens)
    for chosen in {id(c): c for c in controls if c is not None}.values():
        check(lm, chosen)
        if isinstance(chosen, RewriteControl):
            rewriter_of(lm, chosen)
    second = {i: c for i, c in enumerate(controls) if isinstance(c, RewriteControl)}
    texts, ids = [""] * len(rows), [[] for _ in rows]
    receipts, finished = [Receipt()] * len(rows), [False] * len(rows)
    for batch in batches(list(map(len, rows)), controls, batch_size):
        said = Decoder(lm, _of_others(on_token, second), batch, stop).run(
            [rows[i] for i in batch],
            [controls[i] for i in batch],
            Sampler(
                [seeds[i] for i in batch],
                steps=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
            ),
            max_new_tokens,
        )
        for i, (tokens, receipt, ended) in zip(batch, said, strict=True):
            ids[i], receipts[i], finished[i] = tokens, receipt, ended
            texts[i] = _before(lm.tokenizer.decode(tokens, skip_special_tokens=True), stop)
    made = Generation(texts, ids, receipts, [len(row) for row in rows], finished)
    if not second:
        return made
    again = rewrite_rows(
        lm, prompts, made, list(second), list(second.values()), seed=[seeds[i] for i in second],
        temperature=temperature, top_p=top_p, batch_size=batch_size, on_token=on_token,
    )  # fmt: skip
    for i, (text, tokens, ended) in again.items():
        texts[i], ids[i], finished[i] = _before(text, stop), tokens, ended
    return made


def stream(
    lm: HostModel, prompt: Prompt, control: Control | None = None, **options: Any
) -> Iterator[str]:
    """Answer one prompt piece by piece; the pieces joined are the answer of `generate`.

    A reader who stops early (closes the iterator) stops the generation at its next token.
    """
    pieces: queue.Queue[str | Generation | BaseException] = queue.Queue()
    left = threading.Event()

    def put(row: int, text: str) -> None:
        if left.is_set():
            raise _ReaderLeft
        pieces.put(text)

    def work() -> None:
        try:
            pieces.put(generate(lm, [prompt], control, on_token=put, **options))
        except BaseException as error:
            pieces.put(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    said = ""
    try:
        while not isinstance(piece := pieces.get(), Generation):
            if isinstance(piece, BaseException):
                raise piece
            # Wait for whole characters, and for spaces that a later token may swallow.
            if piece.startswith(said) and not piece.endswith("\ufffd") and piece != said:
                yield piece[len(said) :]
                said = piece
        rest = piece.texts[0].removeprefix(said)
        if rest and piece.texts[0] != said:
            yield rest
    finally:
        left.set()
        worker.join()


class _ReaderLeft(Exception):
    """Ends a generation whose stream nobody reads any more."""


def _of_others(on_token: OnToken | None, second: Container[int]) -> OnToken | None:
    """Rows that are rewritten are told of when they are."""
    if on_token is None or not second:
        return on_token
    return lambda row, text: None if row in second else on_token(row, text)


def per_row(control: Controls, n: int) -> list[Control | None]:
    """One control (or None) per row.

    Raises:
        UnsupportedSiteError: a list of another length.
    """
    if control is None or isinstance(control, Control):
        return [control] * n
    if len(control) != n:
        raise UnsupportedSiteError(
            f"{len(control)} controls were given for {n} prompts. "
            "Give one control for all or one (or None) per prompt."
        )
    return list(control)


def _before(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop in it."""
    return text[: min((text.find(s) for s in stop if s in text), default=len(text))]


class Decoder:
    """Decodes one batch; prompts are padded on the left so that all rows end together."""

    def __init__(
        self,
        lm: HostModel,
        on_token: OnToken | None,
        numbers: Sequence[int],
        stop: Sequence[str] = (),
    ):
        self.lm, self.on_token, self.numbers, self.stop = lm, on_token, numbers, stop
        # A token holds a byte at least: no more of them can hold a stop that is just complete.
        self._reach = 1 + max((len(text.encode()) for text in stop), default=0)

    @torch.no_grad()
    def run(
        self,
        rows: Sequence[list[int]],
        controls: Sequence[Control | None],
        sampler: Sampler,
        max_new_tokens: int,
    ) -> list[tuple[list[int], Receipt, bool]]:
        lm = self.lm
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), lm.pad_id)
        mask = torch.zeros(len(rows), width + max_new_tokens, dtype=torch.long)
        for number, row in enumerate(rows):
            ids[number, width - len(row) :] = torch.tensor(row)
            mask[number, width - len(row) :] = 1
        ids, mask = ids.to(lm.device), mask.to(lm.device)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        said: list[list[int]] = [[] for _ in rows]
        ended, steps = [False] * len(rows), [0] * len(rows)
        acting = [None if c is None or c.kind == "text" else c for c in controls]
        one = acting[0] if all(c is acting[0] for c in acting) else acting
        with open_session(lm, one) as session:

            def inputs(end: int) -> dict[str, Any]:
                own: dict[str, Any] = dict(input_ids=ids, attention_mask=mask[:, :end])
                if "position_ids" in lm.accepts:
                    own["position_ids"] = positions[:, end - ids.shape[1] : end]
                if "logits_to_keep" in lm.accepts:
                    own["logits_to_keep"] = 1
                return own

            cache: Any = session.read_prompt(inputs(width)) if width > 1 else None
            if cache is not None:
                ids = ids[:, -1:]
            for step in range(max_new_tokens):
                out = lm.model(**inputs(width + step), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                logits = out.logits[:, -1]
                chosen = sampler(logits, step)
                if not torch.isfinite(logits.gather(1, chosen[:, None])).all():
                    raise ModelLoadError(
                        f"{lm.name} gave logits that are not finite. The checkpoint is broken, "
                        "or the control is far too strong for its number type."
                    )
                ids = chosen[:, None].to(lm.device)
                self._note(chosen.tolist(), said, ended, steps)
                if all(ended):
                    break
            receipts = session.receipts() if session.ran else [Receipt()] * len(rows)
        # Rows that ended before the batch did were fed on; those steps are not theirs.
        idle = [step + 1 - own for own in steps]
        return [
            (tokens, self._receipt(receipt, control, unused), done)
            for tokens, receipt, control, unused, done in zip(
                said, receipts, controls, idle, ended, strict=True
            )
        ]

    def _note(
        self, chosen: list[int], said: list[list[int]], ended: list[bool], steps: list[int]
    ) -> None:
        for number, token in enumerate(chosen):
            if ended[number]:
                continue
            steps[number] += 1
            if token in self.lm.stop_ids:
                ended[number] = True
                continue
            said[number].append(token)
            if self.stop:
                latest = self.lm.tokenizer.decode(
                    said[number][-self._reach :], skip_special_tokens=True
                )
                ended[number] = any(text in latest for text in self.stop)
            if self.on_token is not None:
                text = self.lm.tokenizer.decode(said[number], skip_special_tokens=True)
                self.on_token(self.numbers[number], text)

    @staticmethod
    def _receipt(receipt: Receipt, control: Control | None, idle: int) -> Receipt:
        if isinstance(control, TextControl):
            return Receipt(method=control.method, instruction=control.instruction)
        if isinstance(control, RewriteControl):
            return Receipt(method=control.method, rewritten=str(control.target))
        if not receipt.sites:
            return receipt
        made = receipt.tokens - idle
        guidance = None if receipt.guidance is None else receipt.guidance.until(made)
        return replace(receipt, tokens=made, guidance=guidance)
