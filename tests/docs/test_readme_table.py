"""The README's table and the benchmark's page are what the committed results say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from valign.study.results import Results

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("full_table", FOLDER / "full_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.read(FOLDER / "full_table.json")


def test_readme_table_is_generated_from_the_results(script: ModuleType, results: Results) -> None:
    between = script.MARKS.search((ROOT / "README.md").read_text("utf-8"))
    assert between is not None
    inside = between[0].removeprefix(between[1]).removesuffix(between[2])
    assert inside == script.readme_table(results)


def test_the_page_is_generated_from_the_results(script: ModuleType, results: Results) -> None:
    assert (FOLDER / "full_table.md").read_text("utf-8") == script.page(results)


def test_the_results_are_those_of_the_committed_study(results: Results) -> None:
    from valign.study.study_spec import StudySpec

    plan = StudySpec.read(FOLDER / "full_table.yaml").plan
    assert yaml.safe_load((FOLDER / "full_table.yaml").read_text("utf-8"))["models"] == [
        "reference"
    ]
    assert results.seeds == list(plan.seeds)
    assert results.settings["prompts_per_seed"] == plan.prompts
    measured = {(block.method, block.dose) for block in results.blocks}
    for method in plan.methods:
        assert any(label == method.label for label, _ in measured)
    assert {dose for _, dose in measured} - {None} == set(plan.doses)
