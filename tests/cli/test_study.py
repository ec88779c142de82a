"""`valign study`, `compare` and `report` on a tiny model, as a person types them."""

import json
import signal
import time

import pyarrow.parquet as pq
import pytest
import yaml

from tests.cli.conftest import typed
from valign.control import load
from valign.study.cells import read_cell
from valign.study.results import Results

CELLS = 1 + 2 * 4
"""Unsteered; none, random, prompt and CAA towards two values."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def file(model, corpus, words, finished):
    path = finished / "study.yaml"
    path.write_text(
        yaml.safe_dump(
            dict(title="Tiny", models=[dict(name="tiny", path=str(model))], methods=["caa"],
                 values=["benevolence", "power"], doses=[0.05], seeds=[0], corpus=str(corpus),
                 detector=str(words), prompts=4, neutral=2, max_new_tokens=5, batch_size=8)
        )
    )  # fmt: skip
    return path


@pytest.fixture
def study(command, file, finished):
    """A finished study, made once."""
    folder = finished / "out"
    if not (folder / "report.html").is_file():
        said = command("study", file, "--out", folder)
        assert said.code == 0, said
    return folder


def test_a_study_leaves_table_numbers_page_cells_and_controls(study):
    rows = pq.read_table(study / "rows.parquet").to_pylist()
    assert len(rows) == CELLS == len(list((study / "cells").iterdir()))
    caa = [r for r in rows if r["method"] == "caa"]
    assert [r["target"] for r in caa] == ["benevolence=+1", "power=+1"]
    assert all(r["measured_dose"] == pytest.approx(0.05, rel=0.25) and r["n"] == 4 for r in caa)
    told = json.loads((study / "study.json").read_text())
    assert told["cells"] == CELLS and told["failed"] == [] and "torch" in told["versions"]
    assert told["settings"]["prompts"] == 4 and told["grid"]["methods"][0]["name"] == "caa"
    results = Results.read(study / "results" / "tiny.json")
    assert [b.method for b in results.blocks] == ["none", "random", "prompt", "caa"]
    assert results.blocks[-1].cost.seconds > 0 and results.blocks[-1].kind == "edits"
    decided = told["identity"]["tiny"]["0"]
    assert decided["judge"].startswith("wordlist") and decided["judge_fingerprint"] is None
    controls = [load(path) for path in (study / "controls").iterdir()]
    assert sorted(c.method for c in controls) == ["caa"] * 2 + ["prompt"] * 2 + ["random"] * 2
    assert "Tiny" in (study / "report.html").read_text("utf-8")


def test_a_study_has_the_answers_of_a_run(command, study, run_command, model, tmp_path):
    """Cells made one by one answer as a run does that makes all targets together."""
    from valign.study.compare import read_sides

    said = command(*run_command(model, tmp_path / "run", "--prompts", 4, "--neutral", 2))
    assert said.code == 0, said
    (run,), (cells,) = read_sides(tmp_path / "run"), read_sides(study)
    for key, rows in run.answers.items():
        assert {u: r.answer for u, r in rows.items()} == {
            u: r.answer for u, r in cells.answers[key].items()
        }


def test_the_same_command_makes_nothing_again(command, study, file, monkeypatch):
    from valign.study.study_runner import CellRunner

    def never(*args):
        raise AssertionError("a finished cell was made again")

    stamps = {path: path.stat().st_mtime_ns for path in (study / "cells").iterdir()}
    table = (study / "rows.parquet").read_bytes()
    monkeypatch.setattr(CellRunner, "__call__", never)
    said = command("study", file, "--out", study, "--json")
    assert said.code == 0 and json.loads(said.out)["cells"] == CELLS
    assert stamps == {path: path.stat().st_mtime_ns for path in (study / "cells").iterdir()}
    assert (study / "rows.parquet").read_bytes() == table


def test_killed_and_gone_on_with_it_ends_as_if_undisturbed(command, study, file, tmp_path):
    folder = tmp_path / "out"
    with typed(["study", str(file), "--out", str(folder)]) as process:
        deadline = time.monotonic() + 300
        while len(list((folder / "cells").glob("*.parquet"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline, "no cell was finished"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    kept = {path: path.stat().st_mtime_ns for path in (folder / "cells").glob("*.parquet")}
    assert len(kept) >= 3
    said = command("study", file, "--out", folder)
    assert said.code == 0, said
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert (folder / "rows.parquet").read_bytes() == (study / "rows.parquet").read_bytes()


def test_two_workers_make_the_cells_of_one_process(command, study, file, tmp_path):
    """The same answers from a real model; numbers may differ in their last bits."""
    folder = tmp_path / "out"
    said = command("study", file, "--out", folder, "--workers", 2)
    assert said.code == 0, said
    told = json.loads((folder / "study.json").read_text())
    assert told["failed"] == []
    assert told["identity"] == json.loads((study / "study.json").read_text())["identity"]
    cells = {path.name: path for path in (study / "cells").iterdir()}
    shared = {path.name: path for path in (folder / "cells").iterdir()}
    assert len(cells) == CELLS and shared.keys() == cells.keys()
    for name, path in cells.items():
        expected, found = read_cell(path)[1], read_cell(shared[name])[1]
        assert len(found) == len(expected) == 4 + 2
        for a, b in zip(expected, found, strict=True):
            assert (a.key, a.prompt, a.answer, a.tokens) == (b.key, b.prompt, b.answer, b.tokens)
            assert a.scores == pytest.approx(b.scores, abs=1e-6)
            assert a.nll == pytest.approx(b.nll, rel=1e-4)
            assert a.size == pytest.approx(b.size, rel=1e-3)
    table, whole = (pq.read_table(out / "rows.parquet").to_pylist() for out in (folder, study))
    doses = [[row["measured_dose"] or 0.0 for row in rows] for rows in (table, whole)]
    assert doses[0] == pytest.approx(doses[1], rel=1e-3) and max(doses[0]) > 0.04
    assert (folder / "report.html").is_file() and (folder / "results" / "tiny.json").is_file()


def test_check_only_counts(command, file, tmp_path):
    said = command("study", file, "--out", tmp_path / "none", "--check")
    assert said.code == 0 and f"{CELLS} cells, 1 models" in said.out
    assert not (tmp_path / "none").exists()


def test_faults_of_the_file_are_bad_input(refused, file, tmp_path):
    text = file.read_text().replace("- caa", "- caaa").replace("- power", "- powr")
    (tmp_path / "s.yaml").write_text(text)
    said = refused("study", tmp_path / "s.yaml", "--out", tmp_path / "out")
    assert "methods, row 1" in said and "Did you mean caa?" in said and "values, row 2" in said


def test_other_settings_in_the_same_folder_are_refused(refused, study, file, tmp_path):
    (tmp_path / "s.yaml").write_text(file.read_text().replace("prompts: 4", "prompts: 3"))
    assert "prompts differ" in refused("study", tmp_path / "s.yaml", "--out", study)


def test_compare_says_what_differs_and_what_does_not(command, study):
    same = command("compare", study, study)
    assert same.code == 0 and "0 of" in same.out and "Holm" in same.out
    said = command("compare", study, study, "--method-a", "random", "--method-b", "caa", "--json")
    found = json.loads(said.out)
    assert found["alpha"] == 0.05
    assert {c["metric"] for c in found["comparisons"]} >= {"gain", "leakage_raw", "perplexity"}
    assert all(c["p"] <= c["p_holm"] <= 1 for c in found["comparisons"])


def test_compare_of_no_run_is_bad_input(refused, study, tmp_path):
    assert "No results at" in refused("compare", study, tmp_path)


def test_the_page_is_written_again(command, study):
    (study / "report.html").unlink()
    said = command("report", study)
    assert said.code == 0 and (study / "report.html").is_file()
    assert "| caa | 0.05" in command("report", study, "--markdown").out
