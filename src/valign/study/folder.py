"""A run's folder: what is kept, so that nothing finished is lost and nothing is done twice.

run.json          the plan; another plan in the same folder is refused
rows.jsonl        one answer a line, appended as soon as it is judged
cost.json         seconds and tokens per method, summed over all starts
controls/         calibrated controls, safetensors
results.json      the numbers
report.html       the page
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from valign.study.results import Row, read_rows
from valign.values import ValignError

_LONGEST_NAME = 180
"""Bytes; most file systems take 255, and writers add to a name."""

RowKey = tuple[str, str, float | None, int, str, str]


class FolderError(ValignError, OSError):
    """An output folder that cannot be used."""

    def __str__(self) -> str:
        return str(self.args[0])


class RunFolder:
    """Opens or continues the folder of a run.

    Args:
        path: made if missing.
        identity: everything that decides the rows; must equal what the folder was begun with.

    Raises:
        FolderError: not writable, or begun with another plan; the message says in what it differs.
    """

    def __init__(self, path: str | Path, identity: dict[str, Any]):
        self.path = Path(path)
        identity = json.loads(json.dumps(identity, default=str))
        plan = self.path / "run.json"
        try:
            (self.path / "controls").mkdir(parents=True, exist_ok=True)
            if not plan.exists():
                write_text(plan, json.dumps(identity, indent=1, sort_keys=True) + "\n")
            begun = json.loads(plan.read_text("utf-8"))
        except OSError as error:
            raise self._unwritable(error) from None
        except ValueError:
            begun = None
        if not isinstance(begun, dict):
            raise FolderError(
                f"{plan} is damaged, so it cannot be told which run {self.path} holds. Choose "
                "another --out folder for a new run."
            )
        differs = sorted(
            k for k in begun.keys() | identity.keys() if begun.get(k) != identity.get(k)
        )
        if differs:
            raise FolderError(
                f"{self.path} holds another run: {', '.join(differs)} differ. Use the same "
                "command to continue it, or another --out folder for a new run."
            )
        try:
            self._mend_rows()  # only now is it known to be this run's file
        except OSError as error:
            raise self._unwritable(error) from None
        self._done = {row.key for row in self.rows()}

    @property
    def rows_file(self) -> Path:
        return self.path / "rows.jsonl"

    def _mend_rows(self) -> None:
        """Cut off a line that a killed run was still writing."""
        if not self.rows_file.exists():
            self.rows_file.touch()
            return
        with self.rows_file.open("rb+") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            if whole < len(data):
                file.truncate(whole)

    def _unwritable(self, error: OSError) -> FolderError:
        return FolderError(
            f"Cannot write to {self.path}: {error.strerror or error}. "
            "Choose a folder you may write to with --out."
        )

    def rows(self) -> list[Row]:
        """All finished rows."""
        return list(read_rows(self.rows_file))

    def has(self, key: RowKey) -> bool:
        return key in self._done

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows through to the disk before anything else is begun."""
        rows = list(rows)
        try:
            with self.rows_file.open("a", encoding="utf-8", newline="\n") as file:
                file.write("".join(row.line() + "\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None
        self._done.update(row.key for row in rows)

    def cost(self) -> dict[str, dict[str, Any]]:
        """What the run took so far, per arm."""
        try:
            return json.loads((self.path / "cost.json").read_text("utf-8"))
        except (OSError, ValueError):
            return {}

    def write_cost(self, cost: dict[str, dict[str, Any]]) -> None:
        """Keep what the run took, so that a continued run reports all of it."""
        try:
            write_text(self.path / "cost.json", json.dumps(cost, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def control_file(self, method: str, target: str, dose: float | None, seed: int) -> Path:
        """Where a calibrated control lies."""
        strength = "" if dose is None else f"-{dose:g}"
        name = safe_name(f"{method}{strength}-{target}-seed{seed}")
        return self.path / "controls" / f"{name}.safetensors"


def safe_name(name: str) -> str:
    """A file name that stays in its folder and within what file systems take."""
    safe = "".join(c if c.isalnum() or c in "+-=.," else "_" for c in name)
    if len(safe) > _LONGEST_NAME:  # a profile of many values
        safe = f"{safe[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return safe


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)
