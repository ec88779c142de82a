"""Judged answers of a search, kept as JSON lines: an interrupted search goes on from them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One answer under one mixture, and what the judge read in it; see `Judgement`.

    Attributes:
        ask: key of the prompt, see `Ask.key`.
        rewards: objective -> raw reward, where another than the battery's judge gives it.
    """

    name: str
    ask: str
    answer: str
    scores: dict[str, float]
    fluent: bool | None
    facts: int | None
    facts_kept: int | None
    facts_wrong: int | None
    rewards: dict[str, float] | None = None

    def objectives(self, values: Sequence[str]) -> list[float]:
        """What the mixture is searched by: the rewards, or the judge's scores."""
        given = self.scores if self.rewards is None else self.rewards
        return [given[value] for value in values]


class FrontRows:
    """Rows by (mixture, prompt) in a file that is only ever appended to.

    Args:
        path: the file; None keeps rows in memory.
        identity: what decides an answer beside mixture and prompt (model, adapters, lengths,
            judge); rows of another identity stay in the file and are not seen.
    """

    def __init__(self, path: Path | None, identity: str):
        self._path, self._identity = path, identity
        self._rows: dict[tuple[str, str], Row] = {}
        if path is not None and path.is_file():
            for line in path.read_text("utf-8").splitlines():
                try:
                    cells = json.loads(line)
                    if cells.pop("identity") == identity:
                        self._keep(Row(**cells))
                except (ValueError, TypeError, KeyError):
                    continue  # a kill may cut the last line short

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._rows

    def __getitem__(self, key: tuple[str, str]) -> Row:
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Keep rows, on disk before this returns."""
        made = list(rows)
        for row in made:
            self._keep(row)
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(
            json.dumps(dict(identity=self._identity, **_cells(row))) + "\n" for row in made
        )
        with self._path.open("a+b") as file:
            if file.tell() and not _ends_whole(file):
                text = "\n" + text
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def _keep(self, row: Row) -> None:
        self._rows[row.name, row.ask] = row


def _cells(row: Row) -> dict[str, object]:
    cells = asdict(row)
    if row.rewards is None:
        del cells["rewards"]
    return cells


def _ends_whole(file) -> bool:  # type: ignore[no-untyped-def]
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"
