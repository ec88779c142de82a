"""Cells: the unit a study is made of, and the Parquet file in which a finished one lies.

A cell is one method towards one target at one dose under one seed on one model. Its file holds one
row per answer; what is known of the cell as a whole (dose, cost, which model) stands in the file's
metadata. A file is there whole or not at all, so that its being there is what `finished` means.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from valign.study.folder import FolderError, safe_name
from valign.study.results import Row

_SCORES = pa.map_(pa.string(), pa.float64())
SCHEMA = pa.schema(
    [
        ("run", pa.string()),
        ("method", pa.string()),
        ("target", pa.string()),
        ("dose", pa.float64()),
        ("seed", pa.int64()),
        ("prompt_id", pa.string()),
        ("reading", pa.string()),
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("scores", _SCORES),
        ("aspects", pa.map_(pa.string(), _SCORES)),
        ("fluent", pa.bool_()),
        ("facts", pa.int64()),
        ("facts_kept", pa.int64()),
        ("facts_wrong", pa.int64()),
        ("nll", pa.float64()),
        ("tokens", pa.int64()),
        ("gate_open", pa.bool_()),
        ("touched", pa.int64()),
        ("size", pa.float64()),
    ]
)
"""Columns of a cell's file: the fields of `Row`."""

_META = b"valign"


@dataclass(frozen=True, order=True)
class Cell:
    """One method towards one target at one dose under one seed on one model.

    Attributes:
        model: name in the study.
        method: label of the method with its settings; `none` with an empty target is the
            unsteered model.
        target: profile as typed, `benevolence=+1`.
        dose: None for methods without strength.
    """

    model: str
    seed: int
    method: str
    target: str
    dose: float | None

    @property
    def name(self) -> str:
        """File name without suffix; the digest keeps names apart that look alike on disk."""
        exact = json.dumps(asdict(self), sort_keys=True)
        dose = "" if self.dose is None else f"-{self.dose:g}"
        readable = f"{self.model}-seed{self.seed}-{self.method}{dose}-{self.target}"
        return f"{safe_name(readable)[:160]}-{hashlib.sha256(exact.encode()).hexdigest()[:10]}"

    @property
    def fit(self) -> tuple[str, int, str, str]:
        """Cells that share this share a fitted control, which differs only by its dose."""
        return self.model, self.seed, self.method, self.target

    def __str__(self) -> str:
        dose = "" if self.dose is None else f" @ {self.dose:g}"
        target = f" towards {self.target}" if self.target else ""
        return f"{self.method}{dose}{target}, seed {self.seed}, on {self.model}"


@dataclass(frozen=True)
class CellResult:
    """What making a cell gives.

    Attributes:
        rows: its answers.
        identity: what decided the rows beside the cell itself; equal for all cells of a model
            and seed.
        cost: seconds, tokens and seconds of fitting.
        model: the host model, as `ModelInfo` dumps it.
        control: the calibrated control as a safetensors file, None where there is none.
    """

    rows: list[Row]
    identity: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    control: bytes | None = None


def write_cell(path: Path, cell: Cell, result: CellResult) -> None:
    """Write a cell's file, whole or not at all, through to the disk."""
    about = {
        "cell": asdict(cell),
        "identity": result.identity,
        "cost": result.cost,
        "model": result.model,
    }
    rows = [row.model_dump() for row in result.rows]
    for row in rows:
        row["scores"] = list(row["scores"].items())
        row["aspects"] = [(name, list(scores.items())) for name, scores in row["aspects"].items()]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({_META: json.dumps(about)}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_whole(path, buffer.getvalue())


def read_cell(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """What a cell's file says of the cell, and its rows.

    Raises:
        FolderError: no cell of a study.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA)
        about = json.loads((pq.read_schema(path).metadata or {})[_META])
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise FolderError(
            f"{path} is no finished cell ({error}). Delete it, and the same command makes it again."
        ) from None
    rows = table.to_pylist()
    for row in rows:
        row["scores"] = dict(row["scores"])
        row["aspects"] = {name: dict(scores) for name, scores in row["aspects"]}
    return about, [Row.model_validate(row) for row in rows]


def read_about(path: Path) -> dict[str, Any]:
    """What a cell's file says of the cell, without its rows."""
    return json.loads((pq.read_schema(path).metadata or {})[_META])


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; after it returns, a power cut does not take it back."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
