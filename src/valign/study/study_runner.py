"""The bench as a maker of cells: what a worker of a study does."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valign.study.cells import Cell, CellResult
from valign.study.results import Row
from valign.study.study_spec import StudySpec

if TYPE_CHECKING:
    from valign.study.battery import Battery
    from valign.study.engine import Bench

_DECIDES = (
    "valign", "model_fingerprint", "dtype", "battery", "judge", "judge_fingerprint", "texts"
)  # fmt: skip
"""Of a run's identity, what a cell does not say itself."""


class CellRunner:
    """Makes cells of a study; loads a model when the first of its cells is asked for.

    Picklable: what is heavy is loaded in the process that makes the cells.

    Args:
        spec: the study.
        threads: of this worker; None leaves them alone.
    """

    def __init__(self, spec: StudySpec, *, threads: int | None = None):
        self.spec, self._threads = spec, threads
        self._battery: Battery | None = None
        self._bench: tuple[str, Bench, _Desk] | None = None
        self._identity: dict[tuple[str, int], dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        kept = dict(spec=self.spec, _threads=self._threads)
        return kept | dict(_battery=None, _bench=None, _identity={})

    def __call__(self, cell: Cell) -> CellResult:
        """Fit, set the dose, answer and judge."""
        bench, desk = self._on(cell.model)
        plan = bench.plan
        desk.clear()
        before = dict(bench.spent(cell.method, cell.dose))
        if cell.target:
            choice = next(m for m in plan.methods if m.label == cell.method)
            target = next(t for t in plan.targets if str(t) == cell.target)
            bench.answer(choice, target, cell.dose, cell.seed)
        else:
            bench.answer(plan.methods[0], None, None, cell.seed)
        return CellResult(
            rows=desk.rows,
            identity=self._decided(cell, bench),
            cost={k: v - before[k] for k, v in bench.spent(cell.method, cell.dose).items()},
            model=bench.model.model_dump(mode="json"),
            control=desk.control(),
        )

    def _on(self, model: str) -> tuple[Bench, _Desk]:
        if self._bench is None or self._bench[0] != model:
            import torch

            from valign.study.engine import Bench
            from valign.study.loading import load_battery, load_model

            if self._threads is not None:
                torch.set_num_threads(self._threads)
            self._bench = None  # one model at a time
            entry = next(m for m in self.spec.models if m.name == model)
            lm = load_model(entry.path, entry.dtype, trust_remote_code=entry.trust_remote_code)
            lm.name = entry.name  # the same on every machine
            if self._battery is None:
                self._battery = load_battery(self.spec.corpus_name, self.spec.detector)
            desk = _Desk()
            bench = Bench(lm, self.spec.plan, self._battery, desk)  # type: ignore[arg-type]
            self._bench = (model, bench, desk)
        return self._bench[1:]

    def _decided(self, cell: Cell, bench: Bench) -> dict[str, Any]:
        from valign.study.engine import identity

        key = cell.model, cell.seed
        if key not in self._identity:
            plan = replace(bench.plan, seeds=(cell.seed,))
            whole = identity(plan, bench.lm, bench.battery)
            self._identity[key] = {name: whole[name] for name in _DECIDES}
        return self._identity[key]


class _Desk:
    """What a bench takes for the folder of a run: one cell's rows, in memory."""

    def __init__(self) -> None:
        self.path = Path("study")
        self._drawer = tempfile.TemporaryDirectory(prefix="valign-")
        self._file = Path(self._drawer.name) / f"{os.getpid()}.safetensors"
        self.rows: list[Row] = []

    def clear(self) -> None:
        self.rows = []
        self._file.unlink(missing_ok=True)

    def has(self, key: Any) -> bool:
        return False

    def append(self, rows: Any) -> None:
        self.rows.extend(rows)

    def cost(self) -> dict[str, dict[str, Any]]:
        return {}

    def write_cost(self, cost: dict[str, dict[str, Any]]) -> None:
        """Costs stand in the cells."""

    def control_file(self, *key: Any) -> Path:
        return self._file

    def control(self) -> bytes | None:
        return self._file.read_bytes() if self._file.is_file() else None
