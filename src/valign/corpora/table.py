"""Rows out of JSONL and CSV files, each with the number a person would look it up by."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from valign.corpora.errors import CorpusError


@dataclass(frozen=True)
class Row:
    """One record: `where` is its place, as in `pairs.jsonl line 3` or `pairs.csv row 4`."""

    where: str
    cells: dict[str, Any]


def read_table(path: Path) -> list[Row]:
    """All records of a `.jsonl` or `.csv` file; blank lines are skipped.

    Lines count from 1; CSV rows count as in a spreadsheet, where the header is row 1. Empty CSV
    cells are left out, as a missing key is in JSONL.

    Raises:
        CorpusError: an unknown ending, text that is not UTF-8, a line that is no JSON object, or a
            CSV row with more cells than its header.
    """
    if path.suffix not in (".jsonl", ".csv"):
        raise CorpusError(f"{path.name}: expected a file that ends in .jsonl or .csv.")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path.name} is not UTF-8 text ({error.reason}); save it as UTF-8."
        ) from None
    return _jsonl(path.name, text) if path.suffix == ".jsonl" else _csv(path.name, text)


def _jsonl(name: str, text: str) -> list[Row]:
    rows = []
    # Not splitlines(): it also cuts at characters that JSON strings may hold, such as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(
                f"{name} line {number} is not JSON: {error.msg} at character {error.pos + 1}."
            ) from None
        if not isinstance(cells, dict):
            raise CorpusError(f'{name} line {number}: expected an object, {{"id": ..., ...}}.')
        rows.append(Row(f"{name} line {number}", cells))
    return rows


def _csv(name: str, text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    rows = []
    for number, cells in enumerate(reader, 2):
        where = f"{name} row {number}"
        if len(cells) > len(header):
            raise CorpusError(
                f"{where} has {len(cells)} cells, the header {len(header)}; "
                "put texts that hold a comma in double quotes."
            )
        filled = {c: cell for c, cell in zip(header, cells, strict=False) if cell.strip()}
        if filled:
            rows.append(Row(where, filled))
    return rows
