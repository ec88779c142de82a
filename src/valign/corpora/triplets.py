"""Triplets for rewriters: a source, the values it should come to express, and a rewrite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from valign.corpora.errors import CorpusError
from valign.values import ProfileError, UnknownValueError, ValueSystem


@dataclass(frozen=True)
class Triplet:
    """One rewriting task.

    Attributes:
        id: unique among its kind.
        source: the text to rewrite.
        changes: value -> the score in [-1, 1] it should come to; values that are not named stay
            as they are in the source.
        rewrite: a reference that has these values and the source's facts.
        worse: rewrites with a fault: another value, a fact lost or made up.
        prompt: the question the source answers, if there is one.
        original, target: exact scores of the source and of what is wanted, in the system's
            order, where they are known; elsewhere a detector has to say.
    """

    id: str
    source: str
    changes: Mapping[str, float]
    rewrite: str
    worse: tuple[str, ...] = ()
    prompt: str | None = None
    original: tuple[float, ...] | None = None
    target: tuple[float, ...] | None = None


def load_triplets(system: ValueSystem, path: str | Path | None = None) -> list[Triplet]:
    """Triplets from JSONL: `source`, `target` (value -> score), `rewrite`, and if there are any
    `prompt`, `id` and `bad_rewrites` ({"text": ...}); by default the 50 bundled ones.

    Raises:
        CorpusError: no such file, or a row that does not fit; names the line.
        UnknownValueError: a value that the system does not hold.
    """
    file = (
        resources.files("valign.corpora") / "data" / "valuetexts" / "rewrites.jsonl"
        if path is None
        else Path(path)
    )
    if not file.is_file():
        raise CorpusError(f"No such file: {path}. Expected JSONL with source, target and rewrite.")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(_triplet(system, json.loads(line), number))
        except UnknownValueError:
            raise
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ProfileError) as error:
            raise CorpusError(
                f"{file}, line {number} is no triplet: {type(error).__name__}: {error}. Expected "
                '{"source": "...", "target": {"benevolence": 1}, "rewrite": "..."}.'
            ) from None
    return found


def _triplet(system: ValueSystem, row: Mapping, number: int) -> Triplet:
    changes = {name: float(score) for name, score in row["target"].items()}
    for name, score in changes.items():
        system.index(name)
        if not -1 <= score <= 1:
            raise ProfileError(f"{name}={score} is outside [-1, 1].")
    texts: Sequence[Mapping] = row.get("bad_rewrites", ())
    return Triplet(
        id=str(row.get("id", number)),
        source=str(row["source"]),
        changes=changes,
        rewrite=str(row["rewrite"]),
        worse=tuple(str(bad["text"]) for bad in texts),
        prompt=row.get("prompt"),
    )
