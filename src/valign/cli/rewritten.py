"""The results of `valign rewrite --file`: a JSONL that goes on where it stopped.

How the rewrites are made lies beside it (`OUT.made-with.json`): other settings never go on with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valign.cli.textfile import TextFileError

if TYPE_CHECKING:
    from valign.methods.visa.loop import Rewritten

WISH = ("instruction", "profile", "prompt")
"""What a row asks for beside its text."""


class RewrittenFile:
    """Results in the order of the rows asked for.

    Args:
        path: made when the first result comes.
        rows: objects with `text` and the fields of `WISH`.
        made_with: what decides a result beside its row, as typed: models and files by name.

    Raises:
        TextFileError: the file holds results of other texts, other wishes or other settings.
    """

    def __init__(self, path: Path, rows: Sequence[Mapping[str, Any]], made_with: Mapping[str, Any]):
        self.path, self._rows = path, rows
        told = json.loads(json.dumps(made_with))
        beside = path.with_name(path.name + ".made-with.json")
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            self.done = 0
            return
        if not beside.is_file():
            raise TextFileError(
                f"{path} does not say how its results were made ({beside.name} is missing). "
                "Choose another --out."
            )
        kept = json.loads(beside.read_text(encoding="utf-8"))
        other = sorted(k for k in {*told, *kept} if told.get(k) != kept.get(k))
        if other:
            raise TextFileError(
                f"{path} was made with other settings: {', '.join(other)}. Use the same, or choose "
                "another --out."
            )
        self.done = self._whole()

    def add(self, made: Sequence[Rewritten]) -> None:
        """Append the next results."""
        with self.path.open("a", encoding="utf-8") as file:
            for one in made:
                row = self._rows[self.done]
                wish = {name: row[name] for name in WISH}
                file.write(json.dumps({**one.to_dict(), **wish}, ensure_ascii=False) + "\n")
                self.done += 1

    def _whole(self) -> int:
        """How many results lie there; a line cut short by a stop is taken away."""
        whole: list[str] = []
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        for line in lines:
            try:
                kept = json.loads(line)
            except json.JSONDecodeError:
                break
            if not line.endswith("\n"):
                break
            place = len(whole)
            row = self._rows[place] if place < len(self._rows) else {}
            asked = [row.get("text"), *(row.get(name) for name in WISH)]
            if asked != [kept.get("source"), *(kept.get(name) for name in WISH)]:
                raise TextFileError(
                    f"{self.path} holds results of other texts or wishes (line {place + 1}). "
                    "Choose another --out."
                )
            whole.append(line)
        if len(whole) < len(lines):
            part = self.path.with_name(self.path.name + ".part")
            part.write_text("".join(whole), encoding="utf-8")
            part.replace(self.path)  # a stop in between loses no result
        return len(whole)
