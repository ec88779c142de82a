"""A model before and after a control, on the same items, with paired intervals.

    Outcome(task, metric, n, before, after, change [low, high], p, judged)

Intervals draw items with replacement, both sides of an item together; p-values swap the sides, and
are corrected for the number of metrics (Holm). See `valign.measure.contrast`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from valign.control import Control
from valign.control.saving import save
from valign.detect.judge.usage import Usage
from valign.evals.errors import EvalError
from valign.evals.judges import AnswerJudge
from valign.evals.tasks import Asking, Columns, Metric, Task, get_task
from valign.lm import HostModel
from valign.lm.kinds import check
from valign.measure.contrast import Contrast, contrast, holm
from valign.measure.estimate import Estimate

Progress = Callable[[str, int, int], None]
"""(what is being asked, arms done, arms in all)."""


@dataclass(frozen=True)
class Judged:
    """Who read the answers of a test, on both sides.

    Attributes:
        by: name of the judge, with its version.
        answers: how many were to be read.
        failures: why an answer has no verdict -> how many; they are left out of every number.
        usage: requests and tokens of the whole test.
    """

    by: str
    answers: int
    failures: dict[str, int]
    usage: Usage


@dataclass(frozen=True)
class Outcome:
    """One metric of one test on both sides.

    Attributes:
        better: `higher` or `lower`.
        n: items that both sides have; 0 where nothing was measured, and the numbers are NaN.
        change: after - before, with its interval.
        p: corrected for all metrics of the comparison that were measured.
        judged: who read the answers, None where they are compared with known ones.
    """

    task: str
    metric: str
    better: str
    n: int
    before: float
    after: float
    change: Estimate
    p: float
    judged: Judged | None = None

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `not shown` where p is not below 0.05, or `not measured`."""
        if not self.n:
            return "not measured"
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
        asking: lengths, and the judge; the shipped classifiers unless another is named.
        kept: folder in which a finished test is kept, so that an interrupted comparison goes on.

    Raises:
        EvalError: no such test, or a file without items.
        MissingDataError: a file that is not there.
        UnsupportedSiteError: a control the model cannot run; before anything is asked.
        JudgeError: the judge does not answer; before the model is asked.
    """
    check(lm, control)
    tasks = [get_task(name) for name in files]
    asking = asking or Asking()
    chosen = {
        task.name: _drawn(task, task.read(Path(files[task.name])), limit, seed) for task in tasks
    }
    if any(task.judging for task in tasks):
        asking.judge.check()
    arms = [(task, arm) for task in tasks for arm in (None, control)]
    columns: dict[tuple[str, bool], Columns] = {}
    judged: dict[str, list[Judged]] = defaultdict(list)
    for number, (task, arm) in enumerate(arms):
        side = "before" if arm is None else "after"
        if progress:
            progress(f"{task.name} {side}", number, len(arms))
        items = chosen[task.name]
        path = _place(lm, arm, task, items, asking, Path(kept)) if kept else None
        found, answers = _asked(lm, arm, task, items, asking, path)
        if task.judging and answers is not None:
            if progress:
                progress(f"{task.name} {side}, judged", number, len(arms))
            found, verdicts = _judged(task, items, answers, asking.judge, path)
            judged[task.name].append(verdicts)
        columns[task.name, arm is not None] = found
    outcomes = []
    for task in tasks:
        for metric in task.metrics:
            if metric.name not in columns[task.name, False]:
                continue  # this judge does not know it
            a, b = (columns[task.name, side][metric.name] for side in (False, True))
            n, one = _contrasted(metric, a, b, seed)
            outcomes.append(
                Outcome(task.name, metric.name, metric.better, n, one.a, one.b, one.difference,
                        one.p, _both(judged[task.name]))
            )  # fmt: skip
    corrected = holm([outcome.p for outcome in outcomes])
    return [replace(o, p=float(p)) for o, p in zip(outcomes, corrected, strict=True)]


def _contrasted(metric: Metric, a: np.ndarray, b: np.ndarray, seed: int) -> tuple[int, Contrast]:
    """Items that both sides have, and the contrast over them; NaN where there are none."""
    n = int((~np.isnan(a).any(axis=1) & ~np.isnan(b).any(axis=1)).sum())
    if not n:  # no reason to lose the metrics that were measured
        none = float("nan")
        return 0, Contrast(none, none, Estimate(none, none, none, 0), none)
    return n, contrast(a, b, metric.number, seed=seed, n_draws=2000 if n <= 5000 else 500)


def _both(sides: Sequence[Judged]) -> Judged | None:
    if not sides:
        return None
    return Judged(
        sides[0].by,
        sum(side.answers for side in sides),
        dict(sum((Counter(side.failures) for side in sides), Counter())),
        Usage.total(side.usage for side in sides),
    )


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
    path: Path | None,
) -> tuple[Columns, list[str | None] | None]:
    """Columns and answers of one side, read from their file where it is there already."""
    if path is not None and path.is_file():
        body = json.loads(path.read_text("utf-8"))
        read = {name: np.array(rows, dtype=float) for name, rows in body["columns"].items()}
        return read, body["answers"]
    found, answers = task.ask(lm, control, items, asking)
    if path is not None:
        body = dict(task=task.name, control=control and control.provenance, items=[
            asdict(item) if hasattr(item, "__dataclass_fields__") else item for item in items
        ], columns={name: _plain(x) for name, x in found.items()}, answers=answers)  # fmt: skip
        _write(path, body)
    return found, answers


def _judged(
    task: Task,
    items: list[Any],
    answers: list[str | None],
    judge: AnswerJudge,
    path: Path | None,
) -> tuple[Columns, Judged]:
    """Columns by the judge, whose verdicts are written beside the answers."""
    assert task.judging is not None
    found, verdicts = task.judging.read(items, answers, judge)
    failed = Counter(str(failure) for failure in verdicts.failures if failure is not None)
    told = Judged(judge.name, len(verdicts.failures), dict(failed), verdicts.usage)
    if path is not None:
        name = hashlib.sha256(judge.name.encode()).hexdigest()[:8]
        of = {key: _plain(column) for key, column in verdicts.of.items()}
        _write(path.with_name(f"{path.stem}-judged-{name}.json"), asdict(told) | {"verdicts": of})
    return found, told


def _plain(column: np.ndarray) -> list[Any]:
    """Rows as JSON has them: NaN as null."""
    found = column.astype(object)
    found[np.isnan(column)] = None
    return found.tolist()


def _write(path: Path, body: dict[str, Any]) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(body, ensure_ascii=False), "utf-8")
    os.replace(part, path)


def _place(
    lm: HostModel,
    control: Control | None,
    task: Task,
    items: list[Any],
    asking: Asking,
    folder: Path,
) -> Path:
    return folder / f"{task.name}-{_identity(lm, control, items, asking, folder)}.json"


def _identity(
    lm: HostModel, control: Control | None, items: list[Any], asking: Asking, folder: Path
) -> str:
    """Of everything that decides the answers; the judge reads them anew each time."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(f"{lm.fingerprint}|{asking.max_new_tokens}|".encode())
    digest.update(repr(items).encode())
    if control is not None:
        scratch = save(control, folder / ".control.safetensors")
        digest.update(scratch.read_bytes())
        scratch.unlink()
    return digest.hexdigest()[:16]
