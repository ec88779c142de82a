"""Studies on a Ray cluster; a local one of two workers, one of which is killed."""

from collections import Counter

import pytest

from tests.study.stub import StubRunner, grid
from valign.study.study import StudyFolder, run_cells
from valign.study.study_ray import RayError, RayWorkers

SETTINGS = {"prompts": 8}


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RayError, match=r"pip install 'valign\[ray\]'"):
        RayWorkers(StubRunner(), address="local", size=2)


@pytest.fixture
def cluster():
    """A local cluster of two processes."""
    ray = pytest.importorskip("ray")
    try:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:
        if "timed out during startup" in str(error):
            pytest.skip("this machine is too busy for Ray, which gives itself 30 seconds")
        raise
    yield
    ray.shutdown()


def test_a_worker_killed_in_mid_study_loses_nothing_and_doubles_nothing(tmp_path, cluster):
    cells, log, deadly = grid(), tmp_path / "log", tmp_path / "deadly"
    folder, alone = (StudyFolder(tmp_path / name, SETTINGS) for name in ("ray", "alone"))
    pool = RayWorkers(StubRunner(log=log, deadly=deadly), address="auto", size=2)
    seen = []

    def progress(what, done, total):
        seen.append(done)
        if done == 10:
            deadly.touch()  # the next worker to begin a cell dies

    try:
        assert run_cells(cells, folder, StubRunner(), pool=pool, progress=progress) == {}
    finally:
        pool.close()
    assert not deadly.exists() and seen == list(range(len(cells) + 1))
    assert Counter(log.read_text().split()) == Counter(cell.name for cell in cells)
    run_cells(cells, alone, StubRunner())
    assert all(folder.rows(cell) == alone.rows(cell) for cell in cells)
