"""`valign fit mva` and `valign front`: from pairs to a chosen mixture."""

import json
from dataclasses import replace

import pytest

from tests.detect.fake_endpoint import completion, says, serving
from tests.lm.tiny import tiny_lm, tiny_tokenizer
from tests.study.test_front import control_for
from tests.study.test_front_reward import classifier
from valign.control import load
from valign.control.weights import WeightsControl
from valign.study.front_result import FrontResult
from valign.values import Profile, load_system

server = pytest.fixture(serving)
SMALL = ("--set", "rank=2", "--set", "steps=2", "--set", "batch_size=4", "--set", "rate=0.05")
ASKED = ("--steps", 2, "--search", 3, "--prompts", 4, "--neutral", 2, "--max-new-tokens", 4)


@pytest.fixture
def fitted(command, model, corpus, tmp_path):
    pytest.importorskip("trl")
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


@pytest.fixture
def drawn(tmp_path):
    """A control of two values with adapters drawn at random: nothing is trained."""
    return control_for(tiny_lm(), ("power", "security")).save(tmp_path / "drawn").parent


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """Two reward models, and one that is none."""
    folder = tmp_path_factory.mktemp("rewards")
    for seed, (name, labels) in enumerate((("power", 1), ("security", 1), ("moods", 3))):
        classifier(seed=seed, labels=labels).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    return folder


def test_reward_models_give_the_front(command, drawn, model, corpus, words, rewards):
    ask = ("front", drawn, "--model", model, "--corpus", corpus, "--detector", words, *ASKED)
    named = [f"--reward={v}={rewards / v}" for v in ("security", "power")]
    said = command(*ask, *named)
    assert said.code == 0, said
    result = FrontResult.read(drawn / "front.json")
    assert f"power={rewards / 'power'}@" in result.reward.name
    assert result.points[0].rewards.keys() == {"power", "security"}
    assert len(result.points[0].scores) == 10 and result.judge in (drawn / "front.html").read_text()
    first = result.points[0]
    assert f"power {first.rewards['power'].value:+.2f}" in said.out
    again = command(*ask, *named, "--json")
    assert json.loads(again.out) == json.loads((drawn / "front.json").read_text())


def test_what_is_no_reward_is_refused(refused, drawn, model, rewards):
    ask = ("front", drawn, "--model", model)
    power = f"power={rewards / 'power'}"
    assert "joy is none of the front's values" in refused(*ask, "--reward", "joy=x")
    assert "security has no reward model" in refused(*ask, "--reward", power)
    assert "write value=MODEL" in refused(*ask, "--reward", "power")
    assert "is given twice" in refused(*ask, "--reward", power, "--reward", power)
    for path, why in (("/no/such", "No such folder"), (rewards / "moods", "3 labels")):
        assert why in refused(*ask, "--reward", power, "--reward", f"security={path}")


def test_a_judge_compares_the_front_with_the_plain_model(
    command, drawn, model, corpus, words, server
):
    server.script = [says("hm"), lambda h, b: h.send(200, completion('{"choice": "tie"}'))]
    ask = ("front", drawn, "--model", model, "--corpus", corpus, "--detector", words, *ASKED,
           "--judge-url", server.url, "--judge-model", "grader")  # fmt: skip
    said = command(*ask)
    assert said.code == 0, said
    wins = FrontResult.read(drawn / "front.json").wins
    assert wins.judge.startswith("judge:grader@pairwise-1") and wins.judged == "front"
    assert f"{wins.questions} questions to grader" in said.error
    assert "won against the plain model" in said.out and "power 0.50 [" in said.out
    assert len(server.asked) == wins.questions + 3  # one pair to begin with, one bad answer
    more = command(*ask, "--judge", "all")
    assert more.code == 0, more
    everything = FrontResult.read(drawn / "front.json").wins
    assert len(everything.points) == 4 >= len(wins.points)
    assert everything.usage["cached"] >= wins.questions


def test_values_nobody_reads_are_refused_unless_rewarded(
    command, refused, drawn, model, corpus, words, rewards
):
    control = load(drawn)
    hh = load_system("hh")
    one, other = hh.names[:2]
    renamed = WeightsControl(
        target=Profile.from_mapping(hh, {one: 1.0, other: 1.0}),
        adapters=tuple(
            replace(a, name=v) for a, v in zip(control.adapters, (one, other), strict=True)
        ),
        weights={one: 1.0, other: 1.0},
    )
    ask = ("front", renamed.save(drawn.parent / "hh").parent, "--model", model,
           "--corpus", corpus, "--detector", words, *ASKED)  # fmt: skip
    assert f"schwartz10 and not {one}" in refused(*ask)
    both = [f"--reward={v}={rewards / 'power'}" for v in (one, other)]
    assert command(*ask, *both).code == 0


def test_half_a_judge_is_refused(refused, drawn, model):
    ask = ("front", drawn, "--model", model)
    assert "--judge-model is missing" in refused(*ask, "--judge-url", "http://localhost:1/v1")
    assert "--judge-url is missing" in refused(*ask, "--judge", "all")
    assert "front or all" in refused(*ask, "--judge", "some")
    named = ("--judge-model", "m", "--judge-url")
    assert "is no endpoint" in refused(*ask, *named, "localhost:1")
