"""Items of published instruments, read from the user's copy; none of them is shipped."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from valign.values.questionnaires.types import Item, QuestionnaireError

_TEXT = ("question", "text", "item", "statement")
"""Column of the item's text, in order of preference; ValueBench puts `question` beside `item`."""
_VALUE = ("value", "schwartz_value")
_NUMBER = ("number", "id", "no")


def read_items(
    path: Path,
    *,
    key: Mapping[int, str],
    keep_unscored: bool,
    inventory: str = "",
    own_names: bool = False,
) -> tuple[Item, ...]:
    """Items of a .csv, .jsonl or .txt file in the order of the file.

    Args:
        key: item number -> value, for files that name no values; a file's own values win.
        keep_unscored: keep items without a value (they count for the mean rating only).
        inventory: only rows whose column `questionnaire` says so; empty means all.
        own_names: values are an inventory's own and stay spelled as they are; otherwise
            "Self-Direction: Thought" becomes `self-direction-thought`.

    Raises:
        QuestionnaireError: names the file and the row.
    """
    rows = _rows(path)
    if inventory:
        known = sorted({str(row.get("questionnaire", "")) for _, row in rows})
        rows = [(n, row) for n, row in rows if row.get("questionnaire") == inventory]
        if not rows:
            raise QuestionnaireError(f"{path} has no {inventory!r}; it has {', '.join(known)}.")
    found = []
    for place, (line, row) in enumerate(rows, start=1):
        where = f"{path}, row {line}"
        # ValueConsistency's `question` repeats the instruction around the statement.
        columns = _TEXT[1:] if "statement" in row else _TEXT
        text = _first(row, columns)
        if not text:
            raise QuestionnaireError(f"{where}: no text; expected a column {' or '.join(_TEXT)}.")
        number = _number(_first(row, _NUMBER), place, where)
        value: str | None = _first(row, _VALUE) or key.get(number, "")
        if value and not own_names:
            value = re.sub(r"[\s:–—-]+", "-", value.strip().lower())
        if not value and not keep_unscored:
            raise QuestionnaireError(
                f"{where}: which value is it for? Add a column `value`"
                + (f"; item {number} is not in the published key." if key else ".")
            )
        against = float(_first(row, ("agreement", "sign")) or 1) < 0
        label = str(number) if not inventory else f"{inventory}-{place}"
        found.append(Item(label, text, value or None, -1 if against else 1))
    if not found:
        raise QuestionnaireError(f"{path} holds no items.")
    return tuple(found)


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(line, record) of a file; spreadsheet rows count from 1, the header."""
    if path.suffix not in (".csv", ".jsonl", ".txt"):
        raise QuestionnaireError(f"{path}: expected a file that ends in .csv, .jsonl or .txt.")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise QuestionnaireError(f"No such file: {path}") from None
    except UnicodeDecodeError as error:
        raise QuestionnaireError(f"{path} is not UTF-8 text: {error.reason}.") from None
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if path.suffix == ".csv":
        return list(enumerate(csv.DictReader(io.StringIO(text, newline="")), start=2))
    if path.suffix == ".txt":
        return [(n, {"text": line.strip()}) for n, line in lines]
    found = []
    for n, line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise QuestionnaireError(f"{path}, row {n} is not JSON: {error.msg}.") from None
        if not isinstance(row, dict):
            raise QuestionnaireError(f'{path}, row {n}: expected an object, {{"text": ...}}.')
        found.append((n, row))
    return found


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of these columns that holds something, as text."""
    return next((str(row[n]).strip() for n in names if row.get(n) not in (None, "")), "")


def _number(given: str, place: int, where: str) -> int:
    if not given:
        return place
    if not given.isdigit():
        raise QuestionnaireError(f"{where}: {given!r} is no item number.")
    return int(given)
