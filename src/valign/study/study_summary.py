"""From finished cells to a study's table and the numbers of each model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from valign.measure import see_slopes
from valign.study.battery import Battery
from valign.study.cells import Cell, write_whole
from valign.study.collect import Collector, collect
from valign.study.folder import safe_name
from valign.study.plan import Plan
from valign.study.results import (
    Block,
    DetectorInfo,
    Measured,
    Metrics,
    ModelInfo,
    Results,
    Row,
)
from valign.study.study import StudyFolder

_NUMBERS = tuple(Metrics.model_fields)
_BY_VALUE = pa.map_(pa.string(), pa.float64())
TABLE = pa.schema(
    [
        ("model", pa.string()),
        ("method", pa.string()),
        ("target", pa.string()),
        ("dose", pa.float64()),
        ("seed", pa.int64()),
        ("n", pa.int64()),
        ("measured_dose", pa.float64()),
        ("strength", pa.float64()),
        ("tokens", pa.int64()),
        ("tokens_touched", pa.int64()),
        *((f"{name}{end}", pa.float64()) for name in _NUMBERS for end in ("", "_low", "_high")),
        ("presence", _BY_VALUE),
        ("shift", _BY_VALUE),
    ]
)
"""Columns of `rows.parquet`, one row per cell. Nothing in it depends on when, where or in which
order the cells were made; what they cost stands in the cells and in the results."""


@dataclass(frozen=True)
class ModelOfStudy:
    """The finished cells of one model, in the place of a bench after its run."""

    name: str
    plan: Plan
    battery: Battery
    study: StudyFolder
    cells: Sequence[Cell]

    @property
    def folder(self) -> ModelOfStudy:
        return self

    @property
    def path(self) -> Path:
        return self.study.path

    @property
    def model(self) -> ModelInfo:
        return ModelInfo.model_validate(self.study.about(self.cells[0])["model"])

    @property
    def detectors(self) -> DetectorInfo:
        """Who judged the cells; the detector of that name may have been trained anew since."""
        identity = self.study.about(self.cells[0])["identity"]
        return DetectorInfo(
            judge=self.battery.judge,
            judge_fingerprint=identity.get("judge_fingerprint"),
            tune=self.battery.tune,
        )

    @cached_property
    def by_cell(self) -> dict[Cell, list[Row]]:
        """Answers of every finished cell."""
        return {cell: self.study.rows(cell) for cell in self.cells}

    def rows(self) -> list[Row]:
        return [row for rows in self.by_cell.values() for row in rows]

    def control_file(self, method: str, target: str, dose: float | None, seed: int) -> Path:
        return self.study.control_file(Cell(self.name, seed, method, target, dose))

    def spent(self, label: str, dose: float | None) -> dict[str, Any]:
        total = {"seconds": 0.0, "tokens": 0.0, "fit_seconds": 0.0}
        for cell in self.cells:
            if cell.target and (cell.method, cell.dose) == (label, dose):
                for what, amount in self.study.about(cell)["cost"].items():
                    total[what] = total.get(what, 0.0) + amount
        return total


def models_of(
    plan: Plan, battery: Battery, cells: Sequence[Cell], folder: StudyFolder
) -> list[ModelOfStudy]:
    """The finished cells by model; models whose unsteered answers are missing are left out."""
    found = []
    for name in dict.fromkeys(cell.model for cell in cells):
        done = [cell for cell in cells if cell.model == name and folder.has(cell)]
        seeds = tuple(s for s in plan.seeds if Cell(name, s, "none", "", None) in done)
        mine = [cell for cell in done if cell.seed in seeds]
        steered = {cell.method for cell in mine if cell.target}
        methods = tuple(method for method in plan.methods if method.label in steered)
        if seeds and methods:
            measured = replace(plan, seeds=seeds, methods=methods)
            found.append(ModelOfStudy(name, measured, battery, folder, mine))
    return found


def write_table(models: Sequence[ModelOfStudy], path: Path) -> Path:
    """Write `rows.parquet`, one row per finished cell, in the order of the grid."""
    rows = [row for model in models for row in _rows(model)]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, TABLE), buffer)
    write_whole(path, buffer.getvalue())
    return path


def write_results(
    models: Sequence[ModelOfStudy], folder: StudyFolder, *, command: str, title: str = ""
) -> list[Results]:
    """Write and give back the numbers of each model, over all its seeds."""
    found = []
    for model in models:
        # The page of a study shows no samples, and each start of it would explain them anew.
        results = collect(model, command=command, title=title, explain=False)
        results.write(folder.path / "results" / f"{safe_name(model.name)}.json")
        found.append(results)
    return found


def _rows(model: ModelOfStudy) -> list[dict[str, Any]]:
    found = []
    for cell in model.cells:
        plain = model.by_cell[Cell(cell.model, cell.seed, "none", "", None)]
        choice = next((m for m in model.plan.methods if m.label == cell.method), None)
        if cell.target and choice is not None:
            target = next(t for t in model.plan.targets if str(t) == cell.target)
            alone = replace(
                model.plan,
                methods=(choice,),
                targets=(target,),
                seeds=(cell.seed,),
                doses=(cell.dose,),
            )
            natural = model.battery.natural(cell.seed)
            slopes = None if natural is None else see_slopes(natural, target.array[None])
            collector = Collector(alone, model.battery, [*plain, *model.by_cell[cell]])
            block = collector.block(choice, cell.dose, slopes)
            found.append(_steered(cell, block, model))
        else:
            found.append(_unsteered(cell, plain, model))
    return found


def _steered(cell: Cell, block: Block, model: ModelOfStudy) -> dict[str, Any]:
    (target,) = block.targets
    assert target.receipt is not None
    row = _about(cell, target.metrics.gain.n, target.receipt.tokens) | _dose(cell, model)
    row["tokens_touched"] = target.receipt.tokens_touched
    for name in _NUMBERS:
        row |= _ends(name, getattr(target.metrics, name))
    names = model.battery.system.names
    row["presence"] = [(v, m.value) for v, m in zip(names, block.c[0], strict=True)]
    row["shift"] = [(v, m.value) for v, m in zip(names, block.shift[0], strict=True)]
    return row


def _unsteered(cell: Cell, rows: Sequence[Row], model: ModelOfStudy) -> dict[str, Any]:
    names = model.battery.system.names
    asked = [row for row in rows if row.reading == "ungated"]
    scores = np.array([[row.scores.get(v, 0.0) for v in names] for row in asked])
    present = np.where(np.abs(scores) >= model.battery.threshold, np.sign(scores), 0.0)
    row = _about(cell, len(asked), sum(r.tokens for r in asked))
    row["presence"] = list(zip(names, map(float, present.mean(axis=0)), strict=True))
    return row


def _about(cell: Cell, n: int, tokens: int) -> dict[str, Any]:
    return {
        "model": cell.model,
        "method": cell.method,
        "target": cell.target,
        "dose": cell.dose,
        "seed": cell.seed,
        "n": n,
        "tokens": tokens,
    }


def _dose(cell: Cell, model: ModelOfStudy) -> dict[str, Any]:
    from valign.control import load

    path = model.study.control_file(cell)
    note = load(path).provenance.get("dose", {}) if path.is_file() else {}
    return {"measured_dose": note.get("p95"), "strength": note.get("strength")}


def _ends(name: str, m: Measured | None) -> dict[str, float | None]:
    if m is None or not m.defined:
        return {}
    return {name: m.value, f"{name}_low": m.low, f"{name}_high": m.high}
