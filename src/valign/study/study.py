"""Studies: cells made one by one or by several workers, each kept as soon as it is finished.

    study.json      the settings, the versions, and what decided the rows of each model and seed
    cells/          one Parquet file per finished cell: its answers
    controls/       calibrated controls, safetensors
    rows.parquet    the table: one row per cell
    results/        the numbers of each model, as `valign run` writes them
    report.html     the page

Only the process that was started writes; workers hand over what they made. Killing any of them at
any moment loses the cells they were at and nothing else.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from valign.study.cells import Cell, CellResult, read_about, read_cell, write_cell, write_whole
from valign.study.folder import FolderError, write_text
from valign.study.results import Row
from valign.values import ValignError

Runner = Callable[[Cell], CellResult]
"""Makes one cell; what it raises as `ValignError` is that cell's failure and not the study's."""

Progress = Callable[[str, int, int], None]
"""Called with (what was done last, cells finished, cells in all)."""

_EVERYWHERE = ("judge", "judge_fingerprint")
"""Of what decided rows, what is equal for all models and seeds: their scores are compared."""

_DEATHS = 3
"""So many workers may die over one cell before it is left out."""


@dataclass(frozen=True)
class Failed:
    """A cell that could not be made, and why."""

    why: str


class Pool(Protocol):
    """Workers that make cells; worker numbers run from 0 to `size` - 1."""

    size: int

    def give(self, worker: int, cell: Cell) -> None:
        """Let an idle worker make a cell."""
        ...

    def finished(self) -> list[tuple[int, CellResult | Failed | None]]:
        """Wait until some workers are done; None is a worker that died."""
        ...

    def restart(self, worker: int) -> None:
        """Replace a worker that died."""
        ...

    def close(self) -> None: ...


class StudyFolder:
    """Opens or continues the folder of a study.

    Args:
        path: made if missing.
        settings: what is asked and how; must equal what the folder was begun with. The grid
            itself may grow and shrink: cells that are there are kept and used again.

    Raises:
        FolderError: not writable, or begun with other settings; the message says which.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]):
        self.path = Path(path)
        settings = json.loads(json.dumps(settings))
        try:
            (self.path / "cells").mkdir(parents=True, exist_ok=True)
            (self.path / "controls").mkdir(exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        self._state: dict[str, Any] = {"settings": settings, "identity": {}}
        if self._file.exists():
            self._state = read_study(self.path)
            begun = self._state["settings"]
            differs = sorted(
                k for k in begun.keys() | settings.keys() if begun.get(k) != settings.get(k)
            )
            if differs:
                raise FolderError(
                    f"{self.path} holds another study: {', '.join(differs)} differ. Take the "
                    "change back to continue it, or choose another --out folder."
                )

    @property
    def _file(self) -> Path:
        return self.path / "study.json"

    def sweep(self) -> None:
        """Take away what killed processes were writing; nobody else may be writing now."""
        for place in ("cells", "controls"):
            for partial in (self.path / place).glob(".*"):
                partial.unlink()

    def describe(self, **more: Any) -> None:
        """Add to `study.json`: grid, versions, failures."""
        self._state |= json.loads(json.dumps(more))
        self._write()

    def has(self, cell: Cell) -> bool:
        return self.cell_file(cell).is_file()

    def cell_file(self, cell: Cell) -> Path:
        return self.path / "cells" / f"{cell.name}.parquet"

    def control_file(self, cell: Cell) -> Path:
        return self.path / "controls" / f"{cell.name}.safetensors"

    def keep(self, cell: Cell, result: CellResult) -> None:
        """Keep a finished cell.

        Raises:
            FolderError: it was made by another model, other texts or another version than the
                cells of this model and seed that are there already, or read by another judge than
                any cell.
        """
        self._same(cell, result.identity)
        try:
            if result.control is not None:
                write_whole(self.control_file(cell), result.control)
            write_cell(self.cell_file(cell), cell, result)
        except OSError as error:
            raise self._unwritable(error) from None

    def _same(self, cell: Cell, identity: dict[str, Any]) -> None:
        mine = cell.model, str(cell.seed)
        kept = {
            (model, seed): begun
            for model, seeds in self._state["identity"].items()
            for seed, begun in seeds.items()
        }
        identity = json.loads(json.dumps(identity))
        for (model, seed), begun in kept.items():
            decides = begun.keys() | identity.keys() if (model, seed) == mine else _EVERYWHERE
            differs = sorted(k for k in decides if begun.get(k) != identity.get(k))
            if differs:
                raise FolderError(
                    f"{self.path} holds cells of {model} that were made otherwise: "
                    f"{', '.join(differs)} differ. Go back to what made them, or choose another "
                    "--out folder."
                )
        if mine not in kept:
            self._state["identity"].setdefault(mine[0], {})[mine[1]] = identity
            self._write()

    def rows(self, cell: Cell) -> list[Row]:
        """Answers of a finished cell."""
        return read_cell(self.cell_file(cell))[1]

    def about(self, cell: Cell) -> dict[str, Any]:
        """What the file of a finished cell says of it: cost, model, identity."""
        return read_about(self.cell_file(cell))

    def _write(self) -> None:
        try:
            write_text(self._file, json.dumps(self._state, indent=1, sort_keys=True) + "\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> FolderError:
        return FolderError(
            f"Cannot write to {self.path}: {error.strerror or error}. "
            "Choose a folder you may write to with --out."
        )


def read_study(path: str | Path) -> dict[str, Any]:
    """What `study.json` says.

    Raises:
        FolderError: there is none, or it is damaged.
    """
    file = Path(path) / "study.json"
    try:
        found = json.loads(file.read_text("utf-8"))
    except OSError:
        raise FolderError(f"No study at {path}; `valign study FILE --out {path}` makes one.") from (
            None
        )
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"settings", "identity"} <= found.keys():
        raise FolderError(
            f"{file} is damaged, so it cannot be told which study {path} holds. Choose another "
            "--out folder for a new one."
        )
    return found


def run_cells(
    cells: Sequence[Cell],
    folder: StudyFolder,
    runner: Runner,
    *,
    pool: Pool | None = None,
    progress: Progress | None = None,
) -> dict[Cell, str]:
    """Make every cell that the folder does not hold yet.

    Args:
        cells: the grid; neighbours that share a fit are made by one worker.
        folder: where they are kept.
        runner: makes cells in this process where there is no `pool`.
        pool: workers that make them instead.
        progress: called at the start and after every cell.

    Returns:
        Cells that failed, and why. They are tried again by the next call.
    """
    folder.sweep()
    todo = [cell for cell in cells if not folder.has(cell)]
    tell = progress or (lambda what, done, total: None)
    done, failed = len(cells) - len(todo), {}
    tell("starting", done, len(cells))
    made = one_by_one(todo, runner) if pool is None else by_workers(todo, pool)
    for cell, outcome in made:
        if isinstance(outcome, Failed):
            failed[cell] = outcome.why
        else:
            folder.keep(cell, outcome)
        done += 1
        tell(str(cell), done, len(cells))
    return failed


def attempt(runner: Runner, cell: Cell) -> CellResult | Failed:
    """Make a cell; an error that valign raises on purpose is its result."""
    try:
        return runner(cell)
    except ValignError as error:
        return Failed(str(error))


def one_by_one(cells: Iterable[Cell], runner: Runner) -> Iterable[tuple[Cell, CellResult | Failed]]:
    """Cells made in this process, in order."""
    return ((cell, attempt(runner, cell)) for cell in cells)


def by_workers(cells: Iterable[Cell], pool: Pool) -> Iterable[tuple[Cell, CellResult | Failed]]:
    """Cells made by workers, in the order in which they are finished.

    A worker that dies is replaced, and its cell is given out again, a few times.
    """
    groups = deque(deque(found) for _, found in groupby(cells, key=lambda cell: cell.fit))
    mine: dict[int, deque[Cell]] = {worker: deque() for worker in range(pool.size)}
    busy: dict[int, Cell] = {}
    deaths: Counter[Cell] = Counter()
    while True:
        for worker, queue in mine.items():
            if worker in busy:
                continue
            if not queue and groups:
                queue.extend(groups.popleft())
            if queue:
                busy[worker] = queue.popleft()
                pool.give(worker, busy[worker])
        if not busy:
            return
        for worker, outcome in pool.finished():
            cell = busy.pop(worker)
            if outcome is not None:
                yield cell, outcome
                continue
            pool.restart(worker)
            deaths[cell] += 1
            if deaths[cell] < _DEATHS:
                mine[worker].appendleft(cell)
            else:
                yield cell, Failed(f"{_DEATHS} workers died over it, perhaps of too little memory.")
