"""Well-known tests, read from files as their authors publish them, asked directly.

    mmlu            a letter after the question and its choices, no examples      accuracy
    truthfulqa      "Q: ... A:" and each choice (mc1), no primer                  accuracy
    truthfulqa-mc2  the same; probability of the true choices among all           share
    blimp           is the well-formed sentence the likelier one                  accuracy
    gsm8k           the last number of an answer, no examples                     accuracy
    wikitext        whole articles                                                word perplexity
    harmbench, strongreject, simple-safety-tests
                    answers to harmful requests                       refused, complied, harmful
    xstest          answers to requests that only sound harmful (should not be refused) and to
                    harmful ones (should be)                          refused, complied, of each

Choices, sentences and articles are bare text, as is the custom; questions to be answered go through
the chat template. Without examples and primers the numbers are lower than published ones: they are
for comparing a model with itself. For published settings run lm-eval, see `valign.evals.harness`.

Answers are read by a judge of `valign.evals.judges`: the shipped classifiers, which do not know
whether an answer complied, or a language model. None of them says whether harmful help is any good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from valign.control import Control
from valign.corpora.public import capability, safety
from valign.evals.errors import EvalError
from valign.evals.judges import AnswerJudge, Classifiers, Verdicts
from valign.evals.likelihood import (
    continuations,
    encode_bare,
    first_token,
    instructed_pairs,
    refuse_instruction,
    split_instruction,
    whole_texts,
)
from valign.lm import HostModel, generate
from valign.measure.contrast import Number

Columns = dict[str, np.ndarray]
"""Metric -> one row per item, (n, k), NaN where an item says nothing about it."""


@dataclass(frozen=True)
class Metric:
    """What is made of a column.

    Attributes:
        better: the direction in which nothing is lost.
        number: from means of columns to the number; None is the mean itself.
    """

    name: str
    better: Literal["higher", "lower"]
    number: Number | None = None


@dataclass(frozen=True)
class Asking:
    """How items are asked.

    Attributes:
        max_new_tokens: of answers.
        batch_size: changes no number.
        judge: who reads answers to risky requests.
    """

    max_new_tokens: int = 128
    batch_size: int = 16
    judge: AnswerJudge = field(default_factory=Classifiers)


@dataclass(frozen=True)
class Judging:
    """What a judge is shown, and what is made of its verdicts.

    Attributes:
        requests: items -> what the model was asked, word for word.
        counted: (items, verdicts (n,) per property) -> columns; of those properties alone that
            the judge knows.
    """

    requests: Callable[[Sequence[Any]], list[str]]
    counted: Callable[[Sequence[Any], Mapping[str, np.ndarray]], Columns]

    def read(
        self, items: Sequence[Any], said: Sequence[str | None], judge: AnswerJudge
    ) -> tuple[Columns, Verdicts]:
        """Columns, and the verdicts of all rows; NaN where nothing was said or no verdict given."""
        asked = self.requests(items)
        rows = [row for row, text in enumerate(said) if text is not None]
        found = judge.read([asked[row] for row in rows], [str(said[row]) for row in rows])
        of = {name: np.full(len(said), np.nan) for name in found.of}
        for name, column in found.of.items():
            of[name][rows] = column
        return self.counted(items, of), replace(found, of=of)


@dataclass(frozen=True)
class Task:
    """A test.

    Attributes:
        read: file -> items.
        ask: (model, control, items, how) -> columns, and the answers where there are any.
        judging: how answers are made to columns where a judge must read them; `ask` then gives
            answers alone.
    """

    name: str
    metrics: tuple[Metric, ...]
    read: Callable[[Path], Sequence[Any]]
    ask: Callable[
        [HostModel, Control | None, Sequence[Any], Asking], tuple[Columns, list[str | None] | None]
    ]
    judging: Judging | None = None


def _yes(outcomes: Sequence[bool] | np.ndarray) -> np.ndarray:
    return np.asarray(outcomes, dtype=float)[:, None]


def _scores(
    lm: HostModel, control: Control | None, pairs: Sequence[tuple[str, str]], asking: Asking
) -> np.ndarray:
    """Log-probability of each continuation of its context."""
    instruction, acting = split_instruction(control)
    tokens = instructed_pairs(lm, pairs, instruction)
    found = continuations(lm, tokens, acting, batch_size=asking.batch_size)
    return np.array([total for total, _ in found])


def _choices(form: Callable[[capability.Choice], tuple[str, Sequence[str]]]):
    """Log-probabilities of every question's choices, in the order of the items."""

    def scored(lm, control, items: Sequence[capability.Choice], asking) -> list[np.ndarray]:
        written = [form(item) for item in items]
        pairs = [(head, tail) for head, tails in written for tail in tails]
        ends = np.cumsum([len(tails) for _, tails in written])
        return np.split(_scores(lm, control, pairs, asking), ends[:-1])

    return scored


def _mmlu_form(item: capability.Choice) -> tuple[str, Sequence[str]]:
    lines = [f"{letter}. {text}" for letter, text in zip("ABCDEFGH", item.choices, strict=False)]
    subject = item.subject.replace("_", " ")
    head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    asked = "\n".join([item.question.strip(), *lines, "Answer:"])
    return head + asked, [f" {letter}" for letter in "ABCDEFGH"[: len(item.choices)]]


def _truthful_form(item: capability.Choice) -> tuple[str, Sequence[str]]:
    return f"Q: {item.question}\nA:", [f" {choice}" for choice in item.choices]


def _best(form, lm, control, items, asking):
    scores = _choices(form)(lm, control, items, asking)
    right = [int(s.argmax()) in item.correct for s, item in zip(scores, items, strict=True)]
    return {"accuracy": _yes(right)}, None


def _truth_mass(lm, control, items, asking):
    scores = _choices(_truthful_form)(lm, control, items, asking)
    shares = []
    for s, item in zip(scores, items, strict=True):
        p = np.exp(s - s.max())
        shares.append(p[list(item.correct)].sum() / p.sum())
    return {"true share": np.array(shares)[:, None]}, None


def _grammar(lm, control, items: Sequence[capability.MinimalPair], asking):
    pairs = [("", text) for item in items for text in (item.good, item.bad)]
    good, bad = _scores(lm, control, pairs, asking).reshape(-1, 2).T
    return {"accuracy": _yes(good > bad)}, None


_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> float | None:
    """The number an answer ends with; None where it holds none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _sums(lm, control, items: Sequence[capability.Problem], asking):
    said = _answers(lm, control, [item.question for item in items], asking)
    right = np.full((len(items), 1), np.nan)
    for row, (text, item) in enumerate(zip(said, items, strict=True)):
        if text is not None:
            number = last_number(text)
            right[row] = number is not None and abs(number - item.answer) < 1e-6
    return {"accuracy": right}, said


def _articles(lm, control, items: Sequence[str], asking):
    refuse_instruction(control)
    tokens = [encode_bare(lm, text, special=False) for text in items]
    kept = [ids if ids else [first_token(lm)] for ids in tokens]
    totals = whole_texts(lm, kept, control, batch_size=asking.batch_size)
    words = [len(text.split()) for text in items]
    return {"word perplexity": np.column_stack([totals, words])}, None


def _per_word(means: np.ndarray) -> np.ndarray:
    return np.exp(-means[:, 0] / means[:, 1])


def _answers(lm, control, prompts: Sequence[str], asking: Asking) -> list[str | None]:
    """Answers through the chat template; None to a prompt that leaves no room for one.

    Room is judged without an instruction, so that both sides have the same items; one that fits
    only without it is refused by the engine.
    """
    room = lm.context_length - asking.max_new_tokens
    fits = [i for i, prompt in enumerate(prompts) if len(lm.encode_prompt(prompt)) <= room]
    if not fits:
        raise EvalError(
            f"No question leaves room for {asking.max_new_tokens} tokens of answer in {lm.name}, "
            f"which takes {lm.context_length}. Ask for shorter ones."
        )
    said = generate(
        lm, [prompts[i] for i in fits], control, max_new_tokens=asking.max_new_tokens,
        batch_size=asking.batch_size,
    )  # fmt: skip
    found: list[str | None] = [None] * len(prompts)
    for i, text in zip(fits, said.texts, strict=True):
        found[i] = text
    return found


def _asked_with(requests: Callable[[Sequence[Any]], list[str]]):
    return lambda lm, control, items, asking: ({}, _answers(lm, control, requests(items), asking))


def _harmful_requests(items: Sequence[safety.HarmfulRequest]) -> list[str]:
    return [f"{item.context}\n\n{item.text}" if item.context else item.text for item in items]


def _shares(items: Sequence[safety.HarmfulRequest], of: Mapping[str, np.ndarray]) -> Columns:
    return {name: column[:, None] for name, column in of.items()}


def _texts(items: Sequence[safety.XSTestPrompt]) -> list[str]:
    return [item.text for item in items]


def _over_refusal(items: Sequence[safety.XSTestPrompt], of: Mapping[str, np.ndarray]) -> Columns:
    safe = np.array([item.is_safe for item in items])
    return {
        f"{name}, {kind}": np.where(wanted, of[name], np.nan)[:, None]
        for name in ("refused", "complied")
        if name in of
        for kind, wanted in (("safe", safe), ("unsafe", ~safe))
    }


_ACCURACY = (Metric("accuracy", "higher"),)
_HARM = (Metric("refused", "higher"), Metric("complied", "lower"), Metric("harmful", "lower"))
_OVER = (
    Metric("refused, safe", "lower"), Metric("complied, safe", "higher"),
    Metric("refused, unsafe", "higher"), Metric("complied, unsafe", "lower"),
)  # fmt: skip


def _file(reader: Callable[..., Sequence[Any]], *split: str) -> Callable[[Path], Sequence[Any]]:
    return lambda path: reader(*split, folder=path)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("mmlu", _ACCURACY, _file(capability.mmlu, "test"), partial(_best, _mmlu_form)),
        Task(
            "truthfulqa", _ACCURACY, _file(capability.truthfulqa, "mc1"),
            partial(_best, _truthful_form),
        ),
        Task(
            "truthfulqa-mc2", (Metric("true share", "higher"),),
            _file(capability.truthfulqa, "mc2"), _truth_mass,
        ),
        Task("blimp", _ACCURACY, _file(capability.blimp), _grammar),
        Task("gsm8k", _ACCURACY, _file(capability.gsm8k, "test"), _sums),
        Task(
            "wikitext", (Metric("word perplexity", "lower", _per_word),),
            _file(capability.wikitext2, "test"), _articles,
        ),
        *(
            Task(name, _HARM, read, _asked_with(_harmful_requests),
                 Judging(_harmful_requests, _shares))
            for name, read in (
                ("harmbench", _file(safety.harmbench, "test")),
                ("strongreject", _file(safety.strongreject)),
                ("simple-safety-tests", _file(safety.simple_safety_tests)),
            )
        ),
        Task(
            "xstest", _OVER, _file(safety.xstest), _asked_with(_texts),
            Judging(_texts, _over_refusal),
        ),
    )
}  # fmt: skip


def get_task(name: str) -> Task:
    """A test by name.

    Raises:
        EvalError: no such test.
    """
    if name not in TASKS:
        raise EvalError(f"No test {name!r}. There are: {', '.join(TASKS)}.")
    return TASKS[name]
