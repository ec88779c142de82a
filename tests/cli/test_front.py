"""`valign fit mva` and `valign front`: from pairs to a chosen mixture."""

import json

import pytest

from valign.control import load
from valign.study.front_result import FrontResult

pytest.importorskip("trl")
SMALL = ("--set", "rank=2", "--set", "steps=2", "--set", "batch_size=4", "--set", "rate=0.05")
ASKED = ("--steps", 2, "--search", 3, "--prompts", 4, "--neutral", 2, "--max-new-tokens", 4)


@pytest.fixture
def fitted(command, model, corpus, tmp_path):
    said = command("fit", "mva", "--model", model, "--corpus", corpus, "--out", tmp_path / "m",
                   "--values", "benevolence,power", *SMALL)  # fmt: skip
    assert said.code == 0, said
    return tmp_path / "m"


def test_a_control_of_two_values_is_fitted_searched_and_chosen(command, fitted, corpus, words):
    control = load(fitted)
    assert control.weights == {"power": 1.0, "benevolence": 1.0}
    assert [p.name for p in fitted.iterdir()] == ["control.safetensors"]
    ask = ("front", fitted, "--corpus", corpus, "--detector", words, *ASKED)
    said = command(*ask, "--most", "power", "--keep", "benevolence=0")
    assert said.code == 0, said
    assert said.out.splitlines()[-1] == str(fitted / "front.html")
    result = FrontResult.read(fitted / "front.json")
    assert len(result.searched) == 4 and result.values == ["power", "benevolence"]
    chosen = load(fitted / "chosen")
    assert chosen.weights == result.points[result.chosen].weights
    again = command(*ask, "--json")
    assert json.loads(again.out)["searched"] == [s.model_dump() for s in result.searched]


def test_what_has_no_front_is_refused(refused, command, fitted, model, corpus, tmp_path):
    assert "write value=number" in refused("front", fitted, "--keep", "power")
    assert "security has no adapter" in refused("front", fitted, "--most", "security")
    assert "low < high" in refused("front", fitted, "--low", 2)
    assert "No control at" in refused("front", tmp_path / "none")
    command("fit", "caa", "--model", model, "--corpus", corpus, "--out", tmp_path / "c",
            "--toward", "power")  # fmt: skip
    assert "kind edits" in refused("front", tmp_path / "c")
