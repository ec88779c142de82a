"""What a judge may answer, and how it is read: validated, never evaluated, never guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from valign.values import ValueSystem

TOP_GRADE = 2
"""Grades run from -2 to 2; a score is grade / 2."""

A = TypeVar("A", bound=BaseModel)


class Failure(StrEnum):
    """Why a row has no answer."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    RATE_LIMIT = "rate limit"
    SERVER = "server error"
    REFUSAL = "refusal"
    MALFORMED = "malformed answer"


class BadAnswer(Exception):
    """An answer that cannot be used; carries the failure it counts as."""

    def __init__(self, failure: Failure, detail: str):
        self.failure = failure
        super().__init__(detail)


class PairAnswer(BaseModel):
    """The answer to a pairwise question."""

    model_config = ConfigDict(extra="forbid", strict=True)
    choice: Literal["first", "second", "tie"]


def pointwise_schema(system: ValueSystem) -> type[BaseModel]:
    """The answer to a pointwise question: a whole grade for every value and nothing else."""
    grade = Annotated[int, Field(ge=-TOP_GRADE, le=TOP_GRADE)]
    # Field names must be identifiers, value names need not be; so the names go into aliases.
    fields: dict[str, Any] = {
        f"value_{i}": (grade, Field(alias=name)) for i, name in enumerate(system.names)
    }
    strict = ConfigDict(extra="forbid", strict=True)
    scores = create_model("Scores", __config__=strict, **fields)
    return create_model("PointwiseAnswer", __config__=strict, scores=(scores, ...))


def scores_of(answer: BaseModel, system: ValueSystem) -> list[float]:
    """Scores in [-1, 1] in the system's order, from a valid pointwise answer."""
    graded = answer.model_dump(by_alias=True)["scores"]
    return [graded[name] / TOP_GRADE for name in system.names]


def read_answer(content: str, schema: type[A]) -> A:
    """The one JSON object in a judge's text that fits the schema.

    Thoughts in `<think>` tags, code fences and words around the object are allowed, because
    models add them. Two different fitting objects are refused: one may be quoted from the text.

    Raises:
        BadAnswer: a refusal, no fitting object, or several that differ.
    """
    shown = re.sub(r"<think>.*?</think>", "", content, flags=re.DOTALL)
    fitting: list[A] = []
    fault = "no JSON object in the answer"
    for candidate in _objects(shown):
        try:
            answer = schema.model_validate(candidate)
        except ValidationError as error:
            first = error.errors()[0]
            fault = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            continue
        if answer not in fitting:
            fitting.append(answer)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise BadAnswer(Failure.MALFORMED, "several different JSON answers")
    if "{" not in shown and _REFUSAL.search(shown):
        raise BadAnswer(Failure.REFUSAL, shown.strip()[:120])
    raise BadAnswer(Failure.MALFORMED, fault)


_REFUSAL = re.compile(
    r"\b(?:I(?: am|'m|’m) (?:sorry|unable|not able)|I (?:can(?:not|'t|’t)|won(?:'t|’t)|will not)"
    r"|as an AI)\b",
    re.IGNORECASE,
)


def _objects(text: str) -> list[Mapping[str, Any]]:
    """Every outermost JSON object in the text, left to right."""
    decoder = json.JSONDecoder()
    found: list[Mapping[str, Any]] = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found
