"""The README's table is what the benchmark's results say, character for character."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from valign.study.results import Results

ROOT = Path(__file__).parents[2]


def test_readme_table_is_generated_from_the_results() -> None:
    found = ROOT / "benchmarks" / "world_table.json"
    if not found.is_file():
        pytest.skip("no results yet")
    spec = importlib.util.spec_from_file_location(
        "world_table", ROOT / "benchmarks" / "world_table.py"
    )
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    between = script.MARKS.search((ROOT / "README.md").read_text("utf-8"))
    assert between is not None
    inside = between[0].removeprefix(between[1]).removesuffix(between[2])
    assert inside == script.readme_table(Results.read(found))
