"""Trainings by TRL on a tiny model: every phase, resume after kill -9, TRL's advantages."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import valign
from tests.methods.visa.fake import REWARD, ScriptedRewriter
from tests.methods.visa.trials import LONG
from valign.corpora.triplets import Triplet
from valign.methods.visa.claim import claim
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.training import Settings, last_whole_checkpoint, train

needs_trl = pytest.mark.skipif(find_spec("trl") is None, reason="the train extra is missing")
ROOT = Path(valign.__file__).parents[2]


def process(what, folder, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.methods.visa.trials", what, str(folder)],
        cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{Path(__file__).parents[3]}",
             "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", **more},
    )  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the trials said, after one of them was killed in the middle."""
    folder = tmp_path_factory.mktemp("trials")
    killed = process("long", folder)
    deadline = time.monotonic() + 240
    while not (folder / "long" / "checkpoint-3" / "trainer_state.json").is_file():
        if killed.poll() is not None or time.monotonic() > deadline:
            killed.kill()
            pytest.fail(f"no checkpoint: {killed.communicate()[1][-2000:]}")
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    newest = max(int(p.name[11:]) for p in (folder / "long").glob("checkpoint-*"))
    out, err = process("all", folder).communicate(timeout=400)
    lines = [line for line in out.splitlines() if line.startswith("RESULT ")]
    assert lines, err[-3000:]
    return {**json.loads(lines[0][7:]), "killed at": newest}


@needs_trl
@pytest.mark.timeout(700)
@pytest.mark.parametrize("run", ["sft-4", "sft-None", "grpo-4", "grpo-None", "dpo-4", "simpo-4"])
def test_every_phase_trains_merges_and_cleans_up(told, run):
    made = told[run]
    assert made["steps"] == 3 and made["moved"] > 0 and made["hourly"] > 0
    assert made["template"] and made["left"] == []


@needs_trl
@pytest.mark.timeout(700)
def test_a_killed_training_goes_on_and_a_finished_one_is_not_run_again(told):
    assert told["resumed"]["steps"] == LONG
    assert told["killed at"] - 1 <= told["resumed"]["first"] - 1 <= told["killed at"] < LONG
    assert told["resumed"]["left"] == 0
    assert told["read again"]


@needs_trl
@pytest.mark.timeout(700)
def test_a_phase_ends_when_its_time_is_over(told):
    assert 0.5 <= told["timed"]["seconds"] < 5 and told["timed"]["steps"] < 10_000


@needs_trl
@pytest.mark.timeout(700)
def test_trl_computes_the_advantages_that_we_say(told):
    assert told["advantages"] < 1e-3


def test_a_checkpoint_cut_short_is_thrown_away(tmp_path):
    for step, state in ((5, "{}"), (10, '{"glob'), (15, None)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if state is not None:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-5"]
    assert last_whole_checkpoint(tmp_path / "none") is None


@needs_trl
def test_a_folder_goes_on_with_its_own_training_alone(tmp_path):
    one = dict(phase="sft", steps=3, seed=0)
    claim(tmp_path / "a", one)
    claim(tmp_path / "a", dict(one))
    with pytest.raises(RewriteError, match="another training; it differs in seed, steps"):
        claim(tmp_path / "a", {**one, "steps": 4, "seed": 1})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "model.safetensors").write_text("of something else")
    with pytest.raises(RewriteError, match="does not say which training"):
        claim(tmp_path / "b", one)


def test_what_cannot_be_trained_is_refused_before_anything_is_loaded(tmp_path):
    own = [Triplet("a", "text", {"power": 1}, "rewrite")]
    nobody = ScriptedRewriter([])
    for phase, triplets, settings, reward, word in (
        ("sft", [], Settings(), None, "none were given"),
        ("grpo", own, Settings(), None, "needs a reward"),
        ("grpo", own, Settings(batch=12), REWARD, "whole groups of 8"),
        ("dpo", own, Settings(), None, "have none"),
    ):
        with pytest.raises(RewriteError, match=word):
            train(phase, nobody, triplets, tmp_path / "x", settings, reward=reward)
    assert not (tmp_path / "x").exists()
