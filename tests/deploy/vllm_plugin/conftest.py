"""One model, one bundle and few engine starts for the whole folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.deploy.vllm_plugin.profiles import save_model, write_bundle
from valign.control import EditsControl
from valign.lm import HostModel

ROOT = Path(__file__).parents[3]


OPTIONS = (
    "--enforce-eager --dtype float32 --max-model-len 160 --max-num-seqs 32 --block-size 32 "
    "--kv-cache-memory-bytes 67108864 --max-num-batched-tokens 128"
).split()


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


@pytest.fixture(scope="session")
def start_server(tmp_path_factory, cache) -> Callable[..., Iterator[str]]:
    """Starts `valign serve MODEL --control ...` as the model `m`; gives its URL."""

    @contextmanager
    def start(model: Path, *controls: Path, more: tuple[object, ...] = ()) -> Iterator[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path_factory.mktemp("server") / "log"
        given = [word for control in controls for word in ("--control", str(control))]
        command = [
            sys.executable, "-m", "valign", "serve", str(model), *given, "--name", "m",
            "--port", str(port), "--host", "127.0.0.1", *OPTIONS, *map(str, more),
        ]  # fmt: skip
        with log.open("w") as out:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment(cache), stdout=out, stderr=subprocess.STDOUT
            )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(120)

    return start


def _wait(url: str, process: subprocess.Popen, log) -> None:
    until = time.monotonic() + 700
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text()[-6000:]}")
