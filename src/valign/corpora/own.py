"""The user's own texts: JSONL or CSV files in the columns of the bundled ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from valign.corpora.errors import CorpusError
from valign.corpora.table import Row, read_table
from valign.corpora.types import Answer, Corpus, Dilemma, Neutral, Pair
from valign.values import Profile, ValignError, ValueSystem

_SHOWN = 5

Text = Annotated[str, Field(min_length=1)]


def _names(cell: Any) -> Any:
    """A list stays; in CSV, `power, security` is one."""
    return [part.strip() for part in cell.split(",")] if isinstance(cell, str) else cell


class _RowModel(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    id: Annotated[str, Field(min_length=1, coerce_numbers_to_str=True)] | None = None


class _PairRow(_RowModel):
    value: Text
    positive: Text
    negative: Text
    prompt: Text | None = None
    context: str = ""
    also: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()

    @model_validator(mode="after")
    def _sides_differ(self) -> _PairRow:
        if self.positive == self.negative:
            raise ValueError("positive and negative are the same text")
        return self


class _DilemmaRow(_RowModel):
    value: Text
    text: Text
    context: str = ""
    pole: str = ""


class _AnswerRow(_RowModel):
    answer: Text
    labels: dict[str, float] | str = Field(default_factory=dict)
    prompt: Text | None = None


class _NeutralRow(_RowModel):
    prompt: Text
    answer: str = ""


_KINDS: dict[str, type[_RowModel]] = {
    "pairs": _PairRow,
    "dilemmas": _DilemmaRow,
    "answers": _AnswerRow,
    "neutral": _NeutralRow,
}
_TELLING = {"positive": "pairs", "text": "dilemmas", "labels": "answers", "prompt": "neutral"}
"""The column that tells a kind, in this order: pairs and answers may also have a prompt."""


def read_folder(folder: Path, system: ValueSystem, name: str) -> Corpus:
    """A corpus from `pairs`, `dilemmas`, `answers` and `neutral` files, whichever are there.

    Raises:
        CorpusError: none of the files is there, or a file has wrong rows.
    """
    found = {
        kind: path
        for kind in _KINDS
        for ending in (".csv", ".jsonl")
        if (path := folder / f"{kind}{ending}").is_file()
    }
    if not found:
        raise CorpusError(
            f"{folder} holds none of {', '.join(f'{k}.jsonl' for k in _KINDS)} (or .csv)."
        )
    return _corpus(found, system, name)


def read_file(path: Path, system: ValueSystem) -> Corpus:
    """A corpus from one file; its columns say what it holds.

    Raises:
        CorpusError: columns that fit no kind, or wrong rows.
    """
    columns = {column for row in read_table(path) for column in row.cells}
    for column, kind in _TELLING.items():
        if column in columns:
            return _corpus({kind: path}, system, path.stem)
    kinds = "; ".join(
        f"{kind}: {', '.join(n for n, f in model.model_fields.items() if f.is_required())}"
        for kind, model in _KINDS.items()
    )
    raise CorpusError(
        f"{path.name} has the columns {', '.join(sorted(columns)) or '(none)'}. "
        f"Expected, at least: {kinds}."
    )


def _corpus(files: dict[str, Path], system: ValueSystem, name: str) -> Corpus:
    parts: dict[str, Any] = {}
    notes = []
    for kind, path in files.items():
        rows = read_table(path)
        parts[kind] = _convert(kind, rows, path, system)
        unused = {c for row in rows for c in row.cells} - set(_KINDS[kind].model_fields)
        if unused:
            notes.append(f"{path.name}: columns not used: {', '.join(sorted(unused))}")
    return Corpus(system=system, name=name, notes=tuple(notes), **parts)


def _convert(kind: str, rows: list[Row], path: Path, system: ValueSystem) -> tuple[Any, ...]:
    """Typed rows of one file, or one error that names the first wrong cells of all its rows."""
    wrong: list[str] = []
    made: list[Any] = []
    seen: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        try:
            parsed = _KINDS[kind].model_validate(row.cells)
            made.append(_typed(parsed, parsed.id or f"{path.stem}-{number}", system))
        except ValidationError as error:
            wrong += [f"{row.where}, {_place(e['loc'])}{_said(e)}" for e in error.errors()]
            continue
        except ValignError as error:
            wrong.append(f"{row.where}: {error}")
            continue
        first = seen.setdefault(made[-1].id, row.where)
        if first != row.where:
            wrong.append(f"{row.where}, column id: {made[-1].id!r} stands already in {first}")
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise CorpusError(
            f"{path} does not hold {kind} over {system.name}:\n  "
            + "\n  ".join(wrong[:_SHOWN] + more)
        )
    return tuple(made)


def _place(loc: tuple[int | str, ...]) -> str:
    return f"column {loc[0]}: " if loc else ""


def _said(error: Any) -> str:
    if error["type"] == "missing":
        return "expected a text, found nothing"
    return f"{error['msg']}, found {error['input']!r:.60}" if error["loc"] else str(error["msg"])


def _typed(row: _RowModel, id: str, system: ValueSystem) -> Pair | Dilemma | Answer | Neutral:
    match row:
        case _PairRow():
            for value in (row.value, *row.also):
                system.index(value)
            return Pair(
                id, row.value, row.positive, row.negative, row.prompt, row.context, row.also
            )
        case _DilemmaRow():
            system.index(row.value)
            return Dilemma(id, row.value, row.text, row.context, row.pole)
        case _AnswerRow():
            labels = (
                Profile.parse(row.labels, system)
                if isinstance(row.labels, str)
                else Profile.from_mapping(system, row.labels)
            )
            return Answer(id, row.answer, tuple(labels.named.items()), row.prompt)
        case _NeutralRow():
            return Neutral(id, row.prompt, row.answer)
    raise TypeError(type(row))
