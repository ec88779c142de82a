"""Reading texts from files of any size: plain lines, or JSONL with a `text` field."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from valign.values import ValignError


class TextFileError(ValignError, ValueError):
    """A file of texts that cannot be read; names the line."""


def no_file_as_text(texts: Iterable[str]) -> None:
    """Refuse the name of a file where a text belongs: read as a text, it would get an answer.

    Raises:
        TextFileError: one of the texts is the path of a file.
    """
    for text in texts:
        if os.path.isfile(text):  # False, too, for what no path can be
            raise TextFileError(f"{text} is a file; to read the texts in it: --file {text}")


def stream_texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text), one at a time; `.jsonl` files hold objects with a `text` field.

    Raises:
        TextFileError: no such file, not UTF-8, or a line that does not fit.
    """
    if path.suffix == ".jsonl":
        for number, row in stream_objects(path, example='{"text": "..."}', needed=("text",)):
            yield number, row["text"]
    else:
        yield from ((number, line.strip()) for number, line in _lines(path))


def stream_objects(
    path: Path, *, example: str, needed: Iterable[str], optional: Iterable[str] = ()
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSONL file, one at a time.

    Args:
        example: an object as it should be, for the message.
        needed: fields that have to be there, as texts.
        optional: fields that may be a text, null or absent.

    Raises:
        TextFileError: no such file, not UTF-8, or a line that does not fit.
    """
    needed, optional = tuple(needed), tuple(optional)
    for number, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TextFileError(f"{path}, line {number} is not JSON: {error.msg}.") from None
        fits = isinstance(row, dict) and all(isinstance(row.get(k), str) for k in needed)
        if not fits or any(not isinstance(row.get(k), str | None) for k in optional):
            raise TextFileError(f"{path}, line {number}: expected an object like {example}.")
        yield number, row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        raise TextFileError(f"No such file: {path}")
    try:
        with path.open(encoding="utf-8-sig") as lines:
            yield from ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
    except UnicodeDecodeError as error:
        raise TextFileError(
            f"{path} is not UTF-8 text: {error.reason}. Save it as UTF-8."
        ) from None


def read_lines(path: Path) -> list[str]:
    """All texts of a file.

    Raises:
        TextFileError: as `stream_texts`, or if the file holds no text.
    """
    texts = [text for _, text in stream_texts(path)]
    if not texts:
        raise TextFileError(f"{path} is empty: expected one prompt a line.")
    return texts
