"""How likely given continuations and texts are under a control: bare text, no chat template.

What counts as the prompt: of a continuation its context, of a whole text the first token alone, so
that a control acts on all of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile

import torch

from valign.control import Control, RewriteControl, TextControl
from valign.evals.errors import EvalError
from valign.lm import HostModel
from valign.lm.render import Verbatim
from valign.lm.score import answer_logits

UNLIMITED = 2048
"""Longest sequence for models that do not say what they take (as in lm-eval)."""


def longest(lm: HostModel) -> int:
    """Tokens of the longest sequence."""
    return lm.context_length if lm.context_length < 10**9 else UNLIMITED


def first_token(lm: HostModel) -> int:
    """What stands before a text that has nothing before it."""
    begin = lm.tokenizer.bos_token_id
    return int(lm.tokenizer.eos_token_id if begin is None else begin)


def encode_bare(lm: HostModel, text: str, *, special: bool | None = None) -> list[int]:
    """Tokens; with the tokenizer's special ones unless the text begins with one (a template's)."""
    if special is None:
        begin = lm.tokenizer.bos_token
        special = not (begin and text.startswith(begin))
    return list(lm.tokenizer.encode(text, add_special_tokens=special))


def encode_pair(lm: HostModel, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Tokens of both; spaces at the end of the context go to the continuation (as in lm-eval)."""
    if not context:
        head, tail = [first_token(lm)], encode_bare(lm, continuation, special=False)
        return (tail[:1], tail[1:]) if tail[:1] == head else (head, tail)
    kept = context.rstrip()
    whole = encode_bare(lm, context + continuation)
    head = encode_bare(lm, kept) if kept else [first_token(lm)]
    return head, whole[len(head) :] if kept else whole


def split_instruction(control: Control | None) -> tuple[str, Control | None]:
    """(instruction that goes before bare text, control that acts inside the model).

    Raises:
        EvalError: a control that rewrites answers.
    """
    if isinstance(control, RewriteControl):
        raise EvalError(
            "A control that rewrites answers acts on what was said, not on what is likely. Use "
            "tests that are answered (gsm8k, harmbench, ...), or Inspect: valign.evals.inspect."
        )
    if isinstance(control, TextControl):
        return control.instruction, None
    return "", control


def refuse_instruction(control: Control | None) -> None:
    """Refuse words that would go unheard.

    Raises:
        EvalError: a `text` control, where whole texts are scored.
    """
    if split_instruction(control)[0]:
        raise EvalError(
            "A whole text has no prompt before which an instruction could stand, so its perplexity "
            "under one means nothing. Use another kind of control, or leave this test out."
        )


def led(instruction: str, context: str) -> str:
    """The context behind the instruction, once."""
    return context if not instruction or instruction in context else f"{instruction}\n\n{context}"


def fitted(lm: HostModel, text: str, ids: list[int], room: int, instruction: str) -> list[int]:
    """The last tokens of a text, as many as there is room for.

    An instruction stays in front of them: without it the text would be an unsteered one.

    Raises:
        EvalError: an instruction that cannot stay.
    """
    if len(ids) <= room or not instruction:
        return ids[-room:] if room > 0 else ids  # what asks says that nothing fits
    said = (
        f"The text that ends in {text[-60:]!r} has {len(ids)} tokens, {lm.name} has room for "
        f"{max(room, 0)}, and the instruction"
    )
    advice = "Ask with fewer examples, or use a shorter instruction or a control of edits."
    begin = next((b for b in _beginnings(lm, instruction) if text.startswith(b)), None)
    if begin is None:
        raise EvalError(
            f"{said} does not stand alone at its beginning, where a cut would leave it in place "
            f"(the test may have a system message of its own). {advice}"
        )
    head = encode_bare(lm, begin)
    if len(head) >= room:
        raise EvalError(f"{said} alone takes {len(head)}. {advice}")
    return head + ids[len(head) - room :]


def _beginnings(lm: HostModel, instruction: str) -> tuple[str, str]:
    """All that stands before the first word, in a conversation and in bare text."""
    one, other = (lm.render(word, instruction) for word in "ab")
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return "".join(letter for letter, _ in same), f"{instruction}\n\n"


def instructed_pairs(
    lm: HostModel, pairs: Sequence[tuple[str, str]], instruction: str
) -> list[tuple[list[int], list[int]]]:
    """Tokens of each context, behind the instruction and cut to what fits, and continuation.

    Raises:
        EvalError: an instruction that leaves no room.
    """
    found = []
    for context, continuation in pairs:
        text = led(instruction, context)
        head, tail = encode_pair(lm, text, continuation)
        found.append((fitted(lm, text, head, longest(lm) - len(tail), instruction), tail))
    return found


def continuations(
    lm: HostModel,
    pairs: Sequence[tuple[list[int], list[int]]],
    control: Control | None,
    *,
    batch_size: int = 16,
) -> list[tuple[float, bool]]:
    """(sum of log-probabilities, is it what greedy decoding says) of each continuation.

    Continuations that differ in their last token alone, as the letters of a question do, share a
    pass. A context that does not fit loses its beginning.

    Raises:
        EvalError: an empty context or continuation, or a continuation that does not fit.
    """
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    rows: list[tuple[list[int], list[int]]] = []
    for number, (context, continuation) in enumerate(pairs):
        if not context or not continuation:
            raise EvalError(f"Request {number + 1} has no context or nothing to score.")
        room = longest(lm) - len(continuation)
        if room < 1:
            raise EvalError(
                f"A continuation of {len(continuation)} tokens does not fit {lm.name}, which takes "
                f"{longest(lm)}."
            )
        rows.append((context[-room:], continuation))
        alike[(len(rows[-1][0]), *rows[-1][0], *continuation[:-1])].append(number)
    groups = list(alike.values())
    found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)

    def score(group: int, logits: torch.Tensor, targets: torch.Tensor) -> None:
        logp, best = logits.log_softmax(-1), logits.argmax(-1)
        for number in groups[group]:
            ids = torch.tensor(rows[number][1]).to(best)
            own = logp.gather(1, ids[:, None])[:, 0]
            found[number] = float(own.sum()), bool((best == ids).all())

    firsts = [rows[group[0]] for group in groups]
    prompts = [Verbatim(tuple(context)) for context, _ in firsts]
    answer_logits(lm, prompts, [tail for _, tail in firsts], control, score, batch_size)
    return found


def whole_texts(
    lm: HostModel, texts: Sequence[list[int]], control: Control | None, *, batch_size: int = 16
) -> list[float]:
    """Sum of log-probabilities of whole texts, in windows where they do not fit.

    A window after the first sees as many tokens before those it predicts as it has room for.
    """
    prompts: list[Verbatim] = []
    tails: list[list[int]] = []
    counted: list[tuple[int, int]] = []
    for number, ids in enumerate(texts):
        for row, predicted in _windows([first_token(lm), *ids], longest(lm)):
            prompts.append(Verbatim(tuple(row[:1])))
            tails.append(row[1:])
            counted.append((number, predicted))
    found = [0.0] * len(texts)

    def score(row: int, logits: torch.Tensor, targets: torch.Tensor) -> None:
        logp = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        number, predicted = counted[row]
        found[number] += float(logp[-predicted:].double().sum())

    answer_logits(lm, prompts, tails, control, score, batch_size)
    return found


def _windows(row: list[int], size: int) -> Iterator[tuple[list[int], int]]:
    """(tokens, how many at their end are predicted); all but the first token are, once."""
    done = 1
    while done < len(row):
        new = min(size - 1, len(row) - done)
        end = done + new
        yield row[max(0, end - size) : end], new
        done = end
