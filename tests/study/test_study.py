"""Studies that are killed, extended and shared out end as if nothing had happened."""

import json
import multiprocessing
import random
import time
from collections import Counter
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from tests.study.stub import StubRunner, grid, rows_of
from valign.study.cells import Cell, CellResult, read_cell, write_cell
from valign.study.folder import FolderError
from valign.study.plan import MethodChoice, Plan
from valign.study.study import StudyFolder, run_cells
from valign.study.study_processes import Processes
from valign.values import Profile, load_system

SETTINGS = {"prompts": 8, "corpus": "stub"}
SYSTEM = load_system("schwartz10")
BATTERY = SimpleNamespace(
    system=SYSTEM,
    threshold=0.5,
    ceilings=frozenset(),
    natural=lambda seed: None,
    judge="english-b",
    judge_fingerprint="of now",
    tune=None,
)


def answers(folder, cells):
    return {cell: folder.rows(cell) for cell in cells}


def table(folder, cells, path):
    """`rows.parquet` of a study of stubs, without the seconds."""
    from valign.study.study_summary import models_of, write_table

    plan = Plan(
        methods=(MethodChoice("caa"), MethodChoice("random")),
        targets=tuple(Profile.parse(v, SYSTEM) for v in ("benevolence", "power", "security")),
        doses=tuple(sorted({c.dose for c in cells if c.dose})),
        seeds=tuple(sorted({c.seed for c in cells})),
    )
    return pq.read_table(write_table(models_of(plan, BATTERY, cells, folder), path))


def test_a_cell_comes_back_from_its_file_as_it_was(tmp_path):
    cell = Cell("m", 3, "caa[specific=True]", "power=-1", 0.1)
    result = CellResult(rows=rows_of(cell), identity={"texts": "ab"}, cost={"seconds": 1.5})
    write_cell(tmp_path / "c.parquet", cell, result)
    about, rows = read_cell(tmp_path / "c.parquet")
    assert rows == result.rows and about["identity"] == {"texts": "ab"}
    assert Cell(**about["cell"]) == cell


def test_names_of_cells_stay_apart_and_in_the_folder():
    cells = [
        Cell(model, seed, method, target, dose)
        for model in ("a/b", "a_b", "../x")
        for seed in (0, 1)
        for method in ("caa[layers=1]", "caa_layers=1_", "m" * 300)
        for target in ("power=+1", ",".join(f"v{i}=+0.5" for i in range(60)))
        for dose in (None, 0.1, 0.10001)
    ]
    names = {cell.name for cell in cells}
    assert len(names) == len(cells)
    assert all("/" not in name and len(name.encode()) < 200 for name in names)


def test_finished_cells_are_not_made_again(tmp_path):
    cells, log = grid(), tmp_path / "log"
    folder = StudyFolder(tmp_path / "s", SETTINGS)
    assert run_cells(cells[:20], folder, StubRunner(log=log)) == {}
    steps = []
    run_cells(cells, folder, StubRunner(log=log), progress=lambda *step: steps.append(step))
    assert len(cells) == 38 and steps[0] == ("starting", 20, 38) and steps[-1][1:] == (38, 38)
    assert log.read_text().split() == [cell.name for cell in cells]


def test_a_grown_grid_keeps_what_is_there(tmp_path):
    log = tmp_path / "log"
    run_cells(grid(seeds=1), StudyFolder(tmp_path / "s", SETTINGS), StubRunner(log=log))
    run_cells(grid(seeds=2), StudyFolder(tmp_path / "s", SETTINGS), StubRunner(log=log))
    assert Counter(log.read_text().split()) == Counter(cell.name for cell in grid(seeds=2))


def test_other_settings_or_another_model_are_refused(tmp_path):
    folder = StudyFolder(tmp_path, SETTINGS)
    run_cells(grid()[:3], folder, StubRunner())
    with pytest.raises(FolderError, match=r"another study: prompts differ"):
        StudyFolder(tmp_path, {**SETTINGS, "prompts": 9})
    with pytest.raises(FolderError, match=r"cells of m0 .* model_fingerprint differ"):
        run_cells(grid(), StudyFolder(tmp_path, SETTINGS), StubRunner(fingerprint="4567"))


def test_a_judge_that_was_trained_anew_reads_no_cell_of_the_study(tmp_path):
    from valign.study.study_summary import models_of

    cells = grid(models=2, seeds=2)
    first = [cell for cell in cells if (cell.model, cell.seed) == ("m0", 0)]
    run_cells(first, StudyFolder(tmp_path, SETTINGS), StubRunner(judge="then"))
    for more in (grid(seeds=2), grid(models=2, seeds=1)):  # another seed, another model
        with pytest.raises(FolderError, match=r"cells of m0 .* judge_fingerprint differ"):
            run_cells(more, StudyFolder(tmp_path, SETTINGS), StubRunner(judge="now"))
    folder = StudyFolder(tmp_path, SETTINGS)
    assert [cell for cell in cells if folder.has(cell)] == first
    run_cells(cells, folder, StubRunner(judge="then"))
    plan = Plan(methods=(MethodChoice("caa"),), targets=(Profile.parse("power", SYSTEM),),
                doses=(0.25,), seeds=(0, 1))  # fmt: skip
    for model in models_of(plan, BATTERY, cells, folder):
        assert model.detectors.judge_fingerprint == "then"


def test_a_damaged_study_file_is_not_taken_for_a_new_study(tmp_path):
    run_cells(grid()[:1], StudyFolder(tmp_path, SETTINGS), StubRunner())
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(FolderError, match="damaged"):
        StudyFolder(tmp_path, SETTINGS)


def test_a_cell_that_fails_does_not_stop_the_others_and_is_tried_again(tmp_path):
    cells, folder = grid(), StudyFolder(tmp_path, SETTINGS)
    failed = run_cells(cells, folder, StubRunner(broken="caa"))
    assert {cell.method for cell in failed} == {"caa"} and len(failed) == 18
    assert set(failed.values()) == {"caa cannot run on m0."}
    assert run_cells(cells, folder, StubRunner()) == {}
    assert all(folder.has(cell) for cell in cells)


def test_a_defect_stops_the_study_and_shows_where(tmp_path):
    def defect(cell):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_cells(grid(), StudyFolder(tmp_path, SETTINGS), defect)


def undisturbed(path, cells):
    folder = StudyFolder(path, SETTINGS)
    run_cells(cells, folder, StubRunner())
    return answers(folder, cells)


def test_workers_make_the_same_cells_and_survive_the_death_of_one(tmp_path):
    cells, log, deadly = grid(), tmp_path / "log", tmp_path / "deadly"
    deadly.touch()
    folder = StudyFolder(tmp_path / "s", SETTINGS)
    pool = Processes(StubRunner(log=log, deadly=deadly), 2)
    try:
        assert run_cells(cells, folder, StubRunner(), pool=pool) == {}
    finally:
        pool.close()
    assert not deadly.exists()
    assert sorted(log.read_text().split()) == sorted(cell.name for cell in cells)
    assert answers(folder, cells) == undisturbed(tmp_path / "u", cells)


def test_a_cell_that_kills_every_worker_is_given_up(tmp_path):
    cells = [c for c in grid(seeds=1, doses=1) if c.target in ("", "power=+1")]
    pool = Processes(StubRunner(cursed="caa"), 1)
    try:
        failed = run_cells(cells, StudyFolder(tmp_path, SETTINGS), StubRunner(), pool=pool)
    finally:
        pool.close()
    assert [cell.method for cell in failed] == ["caa"] and "died" in failed[cells[1]]


def go(out, workers):
    """What a process that is going to be killed does."""
    runner = StubRunner(seconds=0.02)
    pool = Processes(runner, workers) if workers else None
    run_cells(grid(models=2, seeds=4, doses=4), StudyFolder(out, SETTINGS), runner, pool=pool)


def finished(out):
    return len(list((out / "cells").glob("*.parquet"))) if (out / "cells").is_dir() else 0


def test_two_hundred_cells_killed_ten_times_end_as_two_hundred_rows(tmp_path):
    cells, out = grid(models=2, seeds=4, doses=4), tmp_path / "s"
    assert len(cells) == 200
    fork = multiprocessing.get_context("fork")  # a fresh start each time would only cost time
    dice, kills, made = random.Random(5), 0, []
    while kills < 10:
        process = fork.Process(target=go, args=(out, 2 if kills == 4 else 0))
        process.start()
        enough = finished(out) + dice.randint(1, 16)
        while finished(out) < enough:
            assert process.is_alive(), "it ended before it was killed"
            time.sleep(0.001)
        time.sleep(dice.random() * 0.03)  # anywhere within a cell
        process.kill()
        process.join()
        kills += 1
        made.append(finished(out))
    assert made == sorted(made) and 10 <= made[-1] < 200
    folder = StudyFolder(out, SETTINGS)
    assert run_cells(cells, folder, StubRunner()) == {}
    assert finished(out) == 200 and not list((out / "cells").glob(".*"))
    assert answers(folder, cells) == undisturbed(tmp_path / "u", cells)
    disturbed, fresh = tmp_path / "d.parquet", tmp_path / "f.parquet"
    rows = table(folder, cells, disturbed).to_pylist()
    keys = {(r["model"], r["method"], r["target"], r["dose"], r["seed"]) for r in rows}
    assert len(rows) == len(keys) == 200
    table(StudyFolder(tmp_path / "u", SETTINGS), cells, fresh)
    assert disturbed.read_bytes() == fresh.read_bytes()


def test_the_table_holds_the_numbers_of_every_cell(tmp_path):
    cells = grid(seeds=1)
    folder = StudyFolder(tmp_path, SETTINGS)
    run_cells(cells, folder, StubRunner())
    rows = table(folder, cells, tmp_path / "rows.parquet").to_pylist()
    assert [(r["method"], r["target"], r["dose"]) for r in rows] == [
        (c.method, c.target, c.dose) for c in cells
    ]
    plain = {r.prompt_id: r for r in folder.rows(cells[0]) if r.reading == "ungated"}
    for cell, row in list(zip(cells, rows, strict=True))[1:]:
        steered = [r for r in folder.rows(cell) if r.reading == "ungated"]
        value = cell.target.partition("=")[0]
        gain = sum(r.scores[value] - plain[r.prompt_id].scores[value] for r in steered) / 8
        assert row["gain"] == pytest.approx(gain) and row["n"] == 8
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert dict(row["shift"])[value] == pytest.approx(gain)
    assert rows[0]["gain"] is None and len(rows[0]["presence"]) == 10


def test_a_study_with_holes_still_has_numbers(tmp_path):
    from valign.study.study_summary import models_of

    cells, folder = grid(), StudyFolder(tmp_path, SETTINGS)
    run_cells(cells, folder, StubRunner(broken="caa"))
    plan = Plan(methods=(MethodChoice("caa"), MethodChoice("random")),
                targets=(Profile.parse("power", SYSTEM),), doses=(0.25,), seeds=(0, 1))  # fmt: skip
    (model,) = models_of(plan, BATTERY, cells, folder)
    assert [m.label for m in model.plan.methods] == ["random"]
    assert table(folder, cells, tmp_path / "t.parquet").num_rows == 20
    assert json.loads((tmp_path / "study.json").read_text())["identity"]["m0"]
