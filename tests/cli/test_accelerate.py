"""Training shared by two processes ends as in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import valign
from valign.control import load

pytest.importorskip("trl")
pytest.importorskip("accelerate")
SMALL = ("--set", "rank=2", "--set", "steps=3", "--set", "batch_size=4", "--set", "rate=0.01")


def test_two_processes_train_what_one_does(command, model, corpus, tmp_path):
    fit = ["fit", "mva", "--model", model, "--corpus", corpus, "--values", "benevolence,power",
           *SMALL, "--out"]  # fmt: skip
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "--main_process_port", "0", "-m", "valign"]  # fmt: skip
    source = str(Path(valign.__file__).parents[1])
    said = subprocess.run(
        [str(a) for a in [*launch, *fit, tmp_path / "two"]], capture_output=True, text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-3000:]
    assert said.stdout.count("control.safetensors") == 1  # one process writes
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["control.safetensors"]
    assert command(*fit, tmp_path / "one").code == 0
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert one.weights == two.weights
    for a, b in zip(one.adapters, two.adapters, strict=True):
        for module, change in a.factors.items():
            torch.testing.assert_close(change.b, b.factors[module].b, rtol=1e-3, atol=1e-5)
