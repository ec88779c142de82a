"""Closed questions put to a model so that what it chooses can be told from where it stood.

Every question is put in pairs of arrangements that mirror each other: where option k stood, option
K-1-k stands, under the same labels. A model that follows places or labels chooses mirrored options
and averages to the middle of the scale. Labels are re-encoded from cell to cell (A B C, 1 2 3,
P Q R, ...), so that no label stays with a place.

Two scorings:

    logprob     P(option) in proportion to P(its label | prompt); `label_mass` says how much of all
                probability the labels hold. One pass a question where labels are single tokens.
    generated   a greedy answer is read: a label or an option's own words, else a refusal, else
                invalid.

They may disagree; a first-token probability is no answer where the model would rather talk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from valign.control import Control
from valign.lm import HostModel, generate
from valign.lm.render import encode
from valign.lm.score import answer_distributions, token_logprobs
from valign.values import ValignError
from valign.values.questionnaires import Questionnaire

Scoring = Literal["logprob", "generated"]
Progress = Callable[[int, int], None]

ENCODINGS = ("ABCDEFGHI", "123456789", "PQRSTUVWX", "abcdefghi")
"""Sets of labels; an encoding is used where the model's tokenizer tells its labels apart."""

_REFUSAL = re.compile(
    r"\b(i(['’]m| am) (sorry|unable|not able)|i (can(no|['’])t|cannot|won['’]t|will not) "
    r"|as an? (ai|artificial|language|assistant)|i (don['’]t|do not) have (personal|any|feelings))",
    re.I,
)


class AskError(ValignError, ValueError):
    """Questions that cannot be put to this model."""


@dataclass(frozen=True)
class Question:
    """A text and its options, from least to most where they are a scale."""

    text: str
    options: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Replies:
    """What was answered; axes are respondents, questions, arrangements (mirrored pairs), options.

    Attributes:
        probabilities: of the options in the order of `Question.options`, (R, Q, A, K); NaN where
            there was no valid answer. One of them is 1 under `generated`.
        option: the chosen option, (R, Q, A); -1 for none.
        place: where it stood, likewise.
        status: "answered", "refused" or "invalid", (R, Q, A).
        label_mass: probability of the labels, (R, Q, A); None under `generated`.
        texts: the answers under `generated`, (R, Q, A); None under `logprob`.
    """

    probabilities: np.ndarray
    option: np.ndarray
    place: np.ndarray
    status: np.ndarray
    label_mass: np.ndarray | None
    texts: np.ndarray | None


def questionnaire_questions(questionnaire: Questionnaire) -> tuple[Question, ...]:
    """The items of a questionnaire with its scale."""
    return tuple(Question(text, questionnaire.options) for text in questionnaire.questions())


def ask(
    lm: HostModel,
    questions: Sequence[Question],
    respondents: Sequence[str] = ("",),
    *,
    control: Control | None = None,
    scoring: Scoring = "logprob",
    pairs: int = 1,
    shuffled: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    max_new_tokens: int = 16,
    progress: Progress | None = None,
) -> Replies:
    """Put every question to every respondent in 2 x `pairs` arrangements.

    Args:
        questions: all with the same number of options, 2 to 9.
        respondents: a line each that goes before the question; empty for the model itself.
        control: steer the answers.
        pairs: mirrored pairs a cell.
        shuffled: shuffle the options (their mirror images keep the pairing); without it they stand
            in their order or its reverse, as on a printed scale.
        seed: of labels and orders; the same for two checkpoints makes their answers paired.
        max_new_tokens: of generated answers.
        progress: called with (done, total) prompts.

    Raises:
        AskError: no questions, different numbers of options, or a tokenizer that tells no set of
            labels apart.
        PromptTooLongError: a question that does not fit; before anything is asked.
    """
    sizes = {len(question.options) for question in questions}
    if len(sizes) != 1 or not respondents or pairs < 1 or not 2 <= (size := sizes.pop()) <= 9:
        raise AskError(
            "Asking takes at least one respondent, one pair and one question, all questions with "
            "the same 2 to 9 options."
        )
    encodings = _usable(lm, size)
    shape = (len(respondents), len(questions), 2 * pairs)
    cells = [
        _Cell(respondents[r], questions[q], *arrangement)
        for r in range(shape[0])
        for q in range(shape[1])
        for arrangement in _arrangements(size, encodings, pairs, shuffled, (seed, r, q))
    ]
    prompts = [cell.prompt() for cell in cells]
    extra = max_new_tokens if scoring == "generated" else 1
    lm.check_length([lm.encode_prompt(prompt) for prompt in prompts], extra)
    judge = _read if scoring == "generated" else _weigh
    found: list[_Reply] = []
    step = 4 * batch_size
    for begin in range(0, len(cells), step):
        part = slice(begin, begin + step)
        found += judge(lm, cells[part], prompts[part], control, batch_size, max_new_tokens)
        if progress is not None:
            progress(len(found), len(cells))
    return _gather(found, shape, size)


@dataclass(frozen=True)
class _Cell:
    """One prompt. order[p] is the option at place p, labels[p] its label."""

    respondent: str
    question: Question
    order: tuple[int, ...]
    labels: str

    def prompt(self) -> str:
        lines = [
            f"{label}. {self.question.options[k]}"
            for label, k in zip(self.labels, self.order, strict=True)
        ]
        choice = f"Answer with one of {', '.join(self.labels)} and nothing else."
        parts = [self.respondent, self.question.text, "\n".join(lines), choice]
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class _Reply:
    """Probabilities by place, or None with the status; `mass` and `text` as in `Replies`."""

    cell: _Cell
    by_place: np.ndarray | None
    status: str = "answered"
    mass: float = float("nan")
    text: str = ""


def _arrangements(
    size: int, encodings: Sequence[str], pairs: int, shuffled: bool, seed: tuple[int, int, int]
) -> list[tuple[tuple[int, ...], str]]:
    rng = np.random.default_rng(seed)
    found = []
    first = int(rng.integers(len(encodings)))
    for pair in range(pairs):
        labels = encodings[(first + pair) % len(encodings)]
        order = rng.permutation(size) if shuffled else np.arange(size)
        if not shuffled and rng.integers(2):
            order = order[::-1]
        mirror = size - 1 - order
        found += [(tuple(map(int, o)), labels) for o in (order, mirror)]
    return found


def _usable(lm: HostModel, size: int) -> list[str]:
    """Encodings whose labels are different single tokens; where there are none, different ones."""
    single, different = [], []
    for encoding in ENCODINGS:
        labels = encoding[:size]
        ids = [tuple(encode(lm.tokenizer, label, templated=True)) for label in labels]
        unknown = lm.tokenizer.unk_token_id
        if len(set(ids)) < size or not all(ids) or any(unknown in row for row in ids):
            continue
        different.append(labels)
        if all(len(row) == 1 for row in ids):
            single.append(labels)
    if not different:
        raise AskError(
            f"The tokenizer of {lm.name} writes all answer labels alike ({', '.join(ENCODINGS)}), "
            "so no choice can be read off."
        )
    return single or different


def _weigh(
    lm: HostModel,
    cells: Sequence[_Cell],
    prompts: Sequence[str],
    control: Control | None,
    batch_size: int,
    _: int,
) -> list[_Reply]:
    ids = [[encode(lm.tokenizer, x, templated=True) for x in cell.labels] for cell in cells]
    if all(len(row) == 1 for labels in ids for row in labels):
        heads = [labels[0] for labels in ids]
        spread = answer_distributions(lm, prompts, heads, control, batch_size=batch_size)
        logs = [s[0, [row[0] for row in labels]].double().numpy()
                for s, labels in zip(spread, ids, strict=True)]  # fmt: skip
    else:
        size = len(cells[0].labels)
        each = [p for p in prompts for _ in range(size)]
        rows = [row for labels in ids for row in labels]
        scored = token_logprobs(lm, each, rows, control, batch_size=batch_size)
        logs = list(np.array([float(t.sum()) for t in scored]).reshape(len(cells), size))
    found = []
    for cell, log in zip(cells, logs, strict=True):
        share = np.exp(log - log.max())
        mass = min(1.0, float(np.exp(log).sum()))
        found.append(_Reply(cell, share / share.sum(), mass=mass))
    return found


def _read(
    lm: HostModel,
    cells: Sequence[_Cell],
    prompts: Sequence[str],
    control: Control | None,
    batch_size: int,
    max_new_tokens: int,
) -> list[_Reply]:
    said = generate(
        lm, prompts, control, max_new_tokens=max_new_tokens, batch_size=batch_size
    ).texts  # fmt: skip
    found = []
    for cell, text in zip(cells, said, strict=True):
        options = [cell.question.options[k] for k in cell.order]
        place = read_choice(text, cell.labels, options)
        if isinstance(place, str):
            found.append(_Reply(cell, None, place, text=text))
        else:
            found.append(_Reply(cell, np.eye(len(options))[place], text=text))
    return found


def read_choice(
    text: str, labels: Sequence[str], options: Sequence[str]
) -> int | Literal["refused", "invalid"]:
    """The place an answer chose.

    In this order: a label at its beginning; "answer is B", "option B", "(B)"; the words of exactly
    one option (the longest, where one holds another); a refusal; else invalid. A bare letter
    inside a sentence does not count: "A" and "I" are words.
    """
    said = text.strip()
    marks = "|".join(re.escape(label) for label in labels)
    for pattern in (
        rf"[\s\"'*(\[]*({marks})(?:[.):\]\"'*,]|\s*$|\s*[-–—\n])",
        r".*?\b(?:answer|option|choice|choose|pick)(?:\s+(?:is|would be))?:?"
        rf"\s*[\"'*(]*({marks})\b",
        rf".*?\(({marks})\)",
    ):
        match = re.match(pattern, said, re.S)
        if match:
            return labels.index(match[1])
    quoted = [
        k
        for k, option in enumerate(options)
        if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", said, re.I)
    ]
    whole = [k for k in quoted if not any(options[k] in options[o] for o in quoted if o != k)]
    if len(whole) == 1:
        return whole[0]
    return "refused" if _REFUSAL.search(said) else "invalid"


def _gather(found: Sequence[_Reply], shape: tuple[int, int, int], size: int) -> Replies:
    probabilities = np.full((len(found), size), np.nan)
    option, place = np.full(len(found), -1), np.full(len(found), -1)
    for row, reply in enumerate(found):
        if reply.by_place is None:
            continue
        probabilities[row, list(reply.cell.order)] = reply.by_place
        place[row] = int(reply.by_place.argmax())
        option[row] = reply.cell.order[place[row]]
    mass = np.array([reply.mass for reply in found])
    generated = bool(np.isnan(mass).all())
    texts = np.array([reply.text for reply in found], dtype=object)
    return Replies(
        probabilities.reshape(*shape, size),
        option.reshape(shape),
        place.reshape(shape),
        np.array([reply.status for reply in found]).reshape(shape),
        None if generated else mass.reshape(shape),
        texts.reshape(shape) if generated else None,
    )
