"""The main job end to end, on the shipped reference model and the world it was trained on."""

import json

import pytest

from valign.study.results import Results

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def _shipped():
    shipped = pytest.importorskip("valign.world.shipped")
    try:
        shipped.reference_path()
    except shipped.MissingReferenceError as error:
        pytest.skip(str(error))


def test_the_demo_ends_with_a_report_of_ten_values(command, tmp_path):
    said = command("demo", "--prompts", 4, "--out", tmp_path / "demo", "--json")
    assert said.code == 0, said
    results = Results.model_validate(json.loads(said.out))
    assert {b.method for b in results.blocks} == {"none", "random", "prompt", "caa", "neva"}
    assert all(len(b.targets) == 10 for b in results.blocks)
    assert (tmp_path / "demo" / "report.html").is_file()


def test_a_word_bias_moves_its_value_and_a_random_direction_does_not(command, tmp_path):
    said = command(
        "run", "--model", "reference", "--method", "logit-bias", "--toward", "tradition",
        "--temperature", 1, "--prompts", 80, "--neutral", 10, "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0, said
    gain = {b.method: b.summary.gain for b in Results.read(tmp_path / "run").blocks}
    assert gain["logit-bias"].low > 0, gain
    assert gain["random"].value < gain["logit-bias"].value / 2, gain


def test_the_prompt_moves_what_it_names(command, tmp_path):
    said = command(
        "run", "--model", "reference", "--method", "prompt", "--toward", "power",
        "--prompts", 60, "--neutral", 0, "--out", tmp_path / "run",
    )  # fmt: skip
    assert said.code == 0, said
    results = Results.read(tmp_path / "run")
    (block,) = [b for b in results.blocks if b.method == "prompt"]
    shifts = {v: block.shift[0][j].value for j, v in enumerate(results.system.values)}
    assert max(shifts, key=shifts.get) == "power" and shifts["power"] > 0


def test_profile_and_generate_know_the_reference_by_name(command):
    said = command("profile", "--prompts", 20, "--json")
    assert said.code == 0 and json.loads(said.out)["judge"] == "world-parser"
    said = command("generate", "Should I help my friend move or rest?", "--json")
    assert said.code == 0 and json.loads(said.out)["baseline"]
