"""Questions with an answer and a worth: of a file, or of the world."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from valign.corpora.errors import CorpusError
from valign.corpora.table import read_table

_SHOWN = 5


@dataclass(frozen=True)
class Question:
    """A question with its answer and what it is worth.

    Attributes:
        prompt: asked of the model.
        answer: what a right answer says.
        value: v(x), points over the exam's points, in [0, 1].
    """

    prompt: str
    answer: str
    value: float


Verifier = Callable[[str, Question], bool]
"""Whether a text answers a question."""


def says_the_answer(text: str, question: Question) -> bool:
    """Whether the answer stands in the text as whole words, upper and lower case alike.

    The paper asks a large model; for open answers pass such a judge instead.
    """
    words = r"\s+".join(map(re.escape, question.answer.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


class _Row(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    prompt: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)]
    value: Annotated[float, Field(ge=0, le=1)]


def read_questions(path: str | Path) -> list[Question]:
    """Questions of a JSONL or CSV file: `prompt`, `answer`, and `value` in [0, 1].

    Raises:
        CorpusError: no such file, no question, or rows that do not fit; names rows and columns.
    """
    path = Path(path)
    if not path.is_file():
        raise CorpusError(
            f"No such file: {path}. Questions are JSONL or CSV with prompt, answer and value, for "
            'example {"prompt": "When did Hugo publish it?", "answer": "1862", "value": 0.05}.'
        )
    found, wrong = [], []
    for row in read_table(path):
        try:
            parsed = _Row.model_validate(row.cells)
        except ValidationError as error:
            for e in error.errors():
                given = "nothing" if e["type"] == "missing" else f"{e['input']!r:.60}"
                wrong.append(f"{row.where}, column {e['loc'][0]}: {e['msg']}, found {given}")
            continue
        found.append(Question(parsed.prompt, parsed.answer, parsed.value))
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise CorpusError(
            f"{path} does not hold questions with prompt, answer and value (in [0, 1]):\n  "
            + "\n  ".join(wrong[:_SHOWN] + more)
        )
    if not found:
        raise CorpusError(f"{path} holds no question.")
    return found


def split(
    questions: Sequence[Question], share: float, *, seed: int = 0
) -> tuple[list[Question], list[Question]]:
    """Questions to train on, and about `share` of them, drawn by the seed, to judge on.

    The same prompt never stands on both sides.

    Raises:
        CorpusError: fewer than two different prompts.
    """
    prompts = list(dict.fromkeys(q.prompt for q in questions))
    if len(prompts) < 2:
        raise CorpusError(
            "One question cannot be both trained on and judged; give at least two, better hundreds."
        )
    n = min(max(1, round(share * len(prompts))), len(prompts) - 1)
    order = np.random.default_rng(seed).permutation(len(prompts))
    judged = {prompts[i] for i in order[:n]}
    return (
        [q for q in questions if q.prompt not in judged],
        [q for q in questions if q.prompt in judged],
    )
