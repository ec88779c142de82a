"""One model, one bundle and few engine starts for the whole folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.vllm_plugin.profiles import save_model, write_bundle
from valign.control import EditsControl
from valign.lm import HostModel

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Served:
    """A checkpoint with its bundle, and the controls the bundle was made of."""

    lm: HostModel
    model: Path
    bundle: Path
    controls: dict[str, EditsControl]


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> Served:
    folder = tmp_path_factory.mktemp("served")
    lm = save_model(folder / "model")
    return Served(lm, folder / "model", folder / "b", write_bundle(lm, folder / "b"))


def environment(folder: Path) -> dict[str, str]:
    """For child processes: their compile cache is ours, and the installed valign is found."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": "1", "VLLM_CACHE_ROOT": str(folder / "vllm-cache"),
            "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # fmt: skip


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """Holds one compile cache that all engines of the session share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run_engine(tmp_path_factory, cache) -> Callable[..., dict]:
    """Runs `engine.py` on a job, in a process of its own."""

    def run(**job) -> dict:
        folder = tmp_path_factory.mktemp("job")
        (folder / "job.json").write_text(json.dumps(job, default=str))
        command = [sys.executable, "-m", "tests.deploy.vllm_plugin.engine",
                   str(folder / "job.json"), str(folder / "out.json")]  # fmt: skip
        done = subprocess.run(
            command, cwd=ROOT, env=environment(cache), capture_output=True, text=True, timeout=700
        )
        if done.returncode:
            raise RuntimeError(done.stdout[-4000:] + done.stderr[-8000:])
        return json.loads((folder / "out.json").read_text())

    return run
