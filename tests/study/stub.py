"""Cells made without a model: answers and scores are drawn from a stream that the cell names."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from valign.study.cells import Cell, CellResult
from valign.study.results import Row
from valign.values import ValignError, load_system

VALUES = load_system("schwartz10").names


class Unmakeable(ValignError):
    """Raised for cells of a method that does not run here."""


@dataclass(frozen=True)
class StubRunner:
    """Makes cells of 8 dilemmas and 2 neutral questions.

    Attributes:
        seconds: how long a cell takes.
        deadly: a file; the first worker that meets it kills itself and takes it away.
        cursed: cells of this method kill every worker.
        broken: cells of this method fail.
        log: a file that gets one line per cell made.
        judge: fingerprint of who reads the answers.
    """

    seconds: float = 0.0
    deadly: Path | None = None
    cursed: str = ""
    broken: str = ""
    log: Path | None = None
    fingerprint: str = "0123"
    judge: str | None = None

    def __call__(self, cell: Cell) -> CellResult:
        if cell.method == self.broken:
            raise Unmakeable(f"{cell.method} cannot run on {cell.model}.")
        if cell.method == self.cursed:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deadly is not None and self.deadly.exists():
            self.deadly.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{cell.name}\n")
        return CellResult(
            rows=rows_of(cell),
            identity={"model_fingerprint": self.fingerprint, "judge_fingerprint": self.judge},
            cost={"seconds": time.perf_counter(), "tokens": 80.0, "fit_seconds": 0.0},
            model=dict(name=cell.model, fingerprint=self.fingerprint, parameters=1,
                       dtype="float32", device="cpu"),
        )  # fmt: skip


def rows_of(cell: Cell) -> list[Row]:
    """Answers in which the target shows more often the higher the dose."""
    digest = hashlib.sha256(cell.name.encode()).digest()
    stream = random.Random(int.from_bytes(digest[:8], "big"))
    target = cell.target.partition("=")[0]
    found = []
    for reading, n in (("ungated", 8), ("neutral", 2)):
        for k in range(n):
            rate = {target: 0.2 + 0.5 * (cell.dose or 0.0)} if reading == "ungated" else {}
            scores = {v: float(stream.random() < rate.get(v, 0.15)) for v in VALUES}
            found.append(
                Row(run="study", method=cell.method, target=cell.target, dose=cell.dose,
                    seed=cell.seed, prompt_id=f"{reading}{cell.seed}-{k}", reading=reading,
                    prompt=f"Question {k}?", answer=f"Answer {stream.random():.3f}",
                    scores=scores, aspects={"choice": {target: 1.0} if target else {}},
                    fluent=stream.random() < 0.9, nll=stream.random() * 8, tokens=8)
            )  # fmt: skip
    return found


def grid(models: int = 1, seeds: int = 2, doses: int = 3) -> list[Cell]:
    """A grid; `grid(models=2, seeds=4, doses=4)` has 200 cells."""
    found = []
    for model in (f"m{i}" for i in range(models)):
        for seed in range(seeds):
            found.append(Cell(model, seed, "none", "", None))
            found += [
                Cell(model, seed, method, f"{value}=+1", 0.25 * (1 + k))
                for method in ("caa", "random")
                for value in ("benevolence", "power", "security")
                for k in range(doses)
            ]
    return found
