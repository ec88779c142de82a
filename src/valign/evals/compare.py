"""A model before and after a control, on the same items, with paired intervals.

    Outcome(task, metric, n, before, after, change [low, high], p)

Intervals draw items with replacement, both sides of an item together; p-values swap the sides, and
are corrected for the number of metrics (Holm). See `valign.measure.contrast`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from valign.control import Control
from valign.control.saving import save
from valign.evals.errors import EvalError
from valign.evals.tasks import Asking, Columns, Task, classifiers, get_task
from valign.lm import HostModel
from valign.lm.kinds import check
from valign.measure.contrast import contrast, holm
from valign.measure.estimate import Estimate

Progress = Callable[[str, int, int], None]
"""(what is being asked, arms done, arms in all)."""


@dataclass(frozen=True)
class Outcome:
    """One metric of one test on both sides.

    Attributes:
        better: `higher` or `lower`.
        n: items that both sides have.
        change: after - before, with its interval.
        p: corrected for all metrics of the comparison.
    """

    task: str
    metric: str
    better: str
    n: int
    before: float
    after: float
    change: Estimate
    p: float

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `not shown` where p is not below 0.05."""
        if not self.p < 0.05:
            return "not shown"
        return "better" if (self.change.value > 0) == (self.better == "higher") else "worse"


def compare(
    lm: HostModel,
    control: Control,
    files: Mapping[str, str | Path],
    *,
    limit: int | None = 500,
    asking: Asking | None = None,
    seed: int = 0,
    kept: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Ask every test on both sides.

    Args:
        files: name of a test -> its file, or the folder that holds the public sets.
        limit: items per test, drawn by seed; None is all.
        asking: lengths and judges; the shipped classifiers where a test needs them.
        kept: folder in which a finished test is kept, so that an interrupted comparison goes on.

    Raises:
        EvalError: no such test, or a file without items.
        MissingDataError: a file that is not there.
        UnsupportedSiteError: a control the model cannot run; before anything is asked.
    """
    check(lm, control)
    tasks = [get_task(name) for name in files]
    asking = asking or Asking()
    if any(task.judged for task in tasks) and not asking.judges:
        asking = replace(asking, judges=classifiers())
    chosen = {
        task.name: _drawn(task, task.read(Path(files[task.name])), limit, seed) for task in tasks
    }
    arms = [(task, arm) for task in tasks for arm in (None, control)]
    columns: dict[tuple[str, bool], Columns] = {}
    for number, (task, arm) in enumerate(arms):
        side = "before" if arm is None else "after"
        if progress:
            progress(f"{task.name} {side}", number, len(arms))
        columns[task.name, arm is not None] = _asked(
            lm, arm, task, chosen[task.name], asking, Path(kept) if kept else None
        )
    found = []
    for task in tasks:
        for metric in task.metrics:
            a, b = (columns[task.name, side][metric.name] for side in (False, True))
            n = int((~np.isnan(a).any(axis=1) & ~np.isnan(b).any(axis=1)).sum())
            draws = 2000 if n <= 5000 else 500
            one = contrast(a, b, metric.number, seed=seed, n_draws=draws)
            found.append(
                Outcome(task.name, metric.name, metric.better, n, one.a, one.b, one.difference,
                        one.p)
            )  # fmt: skip
    corrected = holm([outcome.p for outcome in found])
    return [replace(o, p=float(p)) for o, p in zip(found, corrected, strict=True)]


def _drawn(task: Task, items: Sequence[Any], limit: int | None, seed: int) -> list[Any]:
    if not items:
        raise EvalError(f"The file of {task.name} holds no items.")
    if limit is None or limit >= len(items):
        return list(items)
    drawn = np.random.default_rng(seed).permutation(len(items))[:limit]
    return [items[i] for i in sorted(drawn)]


def _asked(
    lm: HostModel,
    control: Control | None,
    task: Task,
    items: list[Any],
    asking: Asking,
    kept: Path | None,
) -> Columns:
    """Columns of one side, read from the folder where they are there already."""
    if kept is None:
        return task.ask(lm, control, items, asking)[0]
    path = kept / f"{task.name}-{_identity(lm, control, items, asking, kept)}.json"
    if path.is_file():
        said = json.loads(path.read_text("utf-8"))["columns"]
        return {name: np.array(rows, dtype=float) for name, rows in said.items()}
    found, answers = task.ask(lm, control, items, asking)
    rows = {
        name: [[None if y != y else y for y in row] for row in x.tolist()]
        for name, x in found.items()
    }
    body = dict(task=task.name, control=control and control.provenance, items=[
        asdict(item) if hasattr(item, "__dataclass_fields__") else item for item in items
    ], columns=rows, answers=answers)  # fmt: skip
    part = path.with_suffix(".part")
    part.write_text(json.dumps(body, ensure_ascii=False), "utf-8")
    os.replace(part, path)
    return found


def _identity(
    lm: HostModel, control: Control | None, items: list[Any], asking: Asking, folder: Path
) -> str:
    """Of everything that decides the answers."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{lm.fingerprint}|{asking.max_new_tokens}|".encode())
    digest.update(repr(items).encode())
    if control is not None:
        scratch = save(control, folder / ".control.safetensors")
        digest.update(scratch.read_bytes())
        scratch.unlink()
    return digest.hexdigest()[:16]
