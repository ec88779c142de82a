"""`valign generate` and `valign profile`."""

import json

import pytest
import torch

from tests.cli.conftest import VALUES, write_jsonl
from tests.methods.toy import toy_corpus
from valign.control import Edit, EditsControl, Site, TextControl
from valign.lm import HostModel, generate
from valign.methods import get_method
from valign.values import Profile, load_system

PROMPTS = ["should I help the friend or win ?", "rest or work ?"]
TARGET = Profile.parse("benevolence", load_system())


@pytest.fixture(scope="module")
def lm(model):
    return HostModel.load(model)


@pytest.fixture(scope="module")
def control(lm, tmp_path_factory):
    """A strong CAA control, saved."""
    fitted = get_method("caa").fit(lm, toy_corpus(), TARGET).scaled(4.0)
    return fitted.save(tmp_path_factory.mktemp("control"))


def asked(command, model, *more):
    said = command("generate", "--model", model, "--max-new-tokens", 6, *more)
    assert said.code == 0, said
    return said


def test_without_a_control_the_models_own_answer_is_shown(command, model, lm):
    said = asked(command, model, PROMPTS[0])
    own = generate(lm, PROMPTS[:1], max_new_tokens=6).texts[0]
    assert PROMPTS[0] in said.out and own in said.out and "steered" not in said.out
    assert "--control" in said.err


def test_with_a_control_both_answers_stand_side_by_side(command, model, lm, control):
    from valign.control import load

    said = asked(command, model, PROMPTS[0], "--control", control)
    base, moved = (
        generate(lm, PROMPTS[:1], c, max_new_tokens=6).texts[0] for c in (None, load(control))
    )
    assert base != moved
    assert said.out.index(base) < said.out.index("steered") < said.out.index(moved)


def test_json_is_one_object_a_prompt_with_a_receipt(command, model, control, lm):
    said = asked(command, model, *PROMPTS, "-c", control.parent, "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["prompt"] for row in rows] == PROMPTS
    assert [row["baseline"] for row in rows] == generate(lm, PROMPTS, max_new_tokens=6).texts
    assert all(row["receipt"]["method"] == "caa" and row["receipt"]["sites"] for row in rows)


def test_prompts_come_from_arguments_then_files(command, model, tmp_path):
    lines, jsonl = tmp_path / "p.txt", tmp_path / "p.jsonl"
    lines.write_text("rest ?\n\nwork ?\n")
    write_jsonl(jsonl, [{"text": "win ?"}])
    first = asked(command, model, PROMPTS[0], "-f", lines, "--json").out.splitlines()
    assert [json.loads(x)["prompt"] for x in first] == [PROMPTS[0], "rest ?", "work ?"]
    assert json.loads(asked(command, model, "-f", jsonl, "--json").out)["prompt"] == "win ?"


def test_strength_scales_and_zero_strength_changes_nothing(command, model, control):
    def rows(*more):
        return json.loads(asked(command, model, PROMPTS[0], "-c", control, "--json", *more).out)

    assert rows("--strength", 0)["steered"] == rows()["baseline"]
    assert rows("--strength", 3)["receipt"]["size"] > rows()["receipt"]["size"] > 0


def test_sampling_repeats_under_its_seed(command, model):
    def answer(*more):
        return asked(command, model, PROMPTS[0], "--temperature", 1.5, "--json", *more).out

    assert answer("--seed", 3) == answer("--seed", 3)
    assert len({answer("--seed", seed) for seed in range(5)}) > 1


def test_text_controls_have_no_strength(refused, model, tmp_path):
    path = TextControl(target=TARGET, instruction="help").save(tmp_path)
    said = refused("generate", "--model", model, "--control", path, "--strength", 2, "x")
    assert "text control has no strength" in said


@pytest.mark.parametrize(
    ("option", "value"),
    [("--temperature", -1), ("--max-new-tokens", 0), ("--top-p", 0), ("--top-p", 1.5)],
)
def test_settings_out_of_range_name_the_option(refused, option, value):
    said = refused("generate", "--model", "./nowhere", option, value, "x")
    assert option in said and "should be" in said and "valign generate --help" in said


def test_no_prompt_is_refused(refused, model, tmp_path):
    assert "--file" in refused("generate", "--model", model)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    assert "one prompt a line" in refused("generate", "--model", model, "-f", empty)


def test_a_prompt_longer_than_the_context_names_both_lengths(refused, model):
    said = refused("generate", "--model", model, " ".join(["help"] * 300))
    assert "256" in said and "Shorten the prompt" in said


def test_damaged_and_missing_controls_are_refused(refused, model, control, tmp_path):
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(control.read_bytes()[:200])
    assert "damaged" in refused("generate", "--model", model, "-c", cut, "x")
    odd = tmp_path / "odd.safetensors"
    odd.write_text("hello")
    assert "damaged" in refused("generate", "--model", model, "-c", odd, "x")
    assert "No control at" in refused("generate", "--model", model, "-c", tmp_path / "no", "x")
    weights = model / "model.safetensors"
    assert "no valign control" in refused("generate", "--model", model, "-c", weights, "x")


def test_a_control_of_another_shape_is_refused_naming_the_model_it_was_made_on(
    refused, model_folder, control
):
    other = model_folder("llama", hidden_size=48, head_dim=12)
    said = refused("generate", "--model", other, "-c", control, "rest ?")
    assert "fitted on another model" in said and "tiny-llama" in said


def test_a_control_of_another_model_of_that_shape_warns(command, model, model_folder, control):
    other = model_folder("llama", seed=1)
    said = asked(command, other, "rest ?", "-c", control)
    assert "warning" in said.error and "another model" in said.error and "tiny-llama" in said.error
    assert "warning" not in asked(command, model, "rest ?", "-c", control).err


def test_a_control_that_fits_no_site_is_refused(refused, model, tmp_path):
    far = Edit(site=Site("resid", 9), kind="add", tensors=dict(vector=torch.ones(32)))
    path = EditsControl(target=TARGET, edits=(far,)).save(tmp_path)
    assert "layers 0 to 2" in refused("generate", "--model", model, "-c", path, "rest ?")


def test_model_text_is_no_markup(command, model):
    said = asked(command, model, "should [bold]I[/i] rest ?")
    assert "should [bold]I[/i] rest ?" in said.out


def profiled(command, model, corpus, words, *more):
    return command(
        "profile", "--model", model, "--corpus", corpus, "--detector", words,
        "--prompts", 6, "--max-new-tokens", 6, *more,
    )  # fmt: skip


def test_profile_shows_every_value_with_its_interval(command, model, corpus, words):
    said = profiled(command, model, corpus, words)
    assert said.code == 0 and all(name in said.out for name in VALUES)
    assert "6 answers" in said.out and "[" in said.out


def test_profile_json_holds_intervals_judge_and_sample_size(command, model, corpus, words):
    found = json.loads(profiled(command, model, corpus, words, "--json").out)
    assert found["prompts"] == 6 and found["judge"].startswith("wordlist")
    assert tuple(found["values"]) == VALUES
    for row in found["values"].values():
        for number in row.values():
            assert number["low"] <= number["value"] <= number["high"] and number["n"] == 6
    again = json.loads(profiled(command, model, corpus, words, "--json").out)
    assert again == found


def test_profile_under_a_control_moves(command, model, corpus, words, control):
    plain = json.loads(profiled(command, model, corpus, words, "--json").out)
    moved = json.loads(profiled(command, model, corpus, words, "--json", "-c", control).out)
    assert plain["values"] != moved["values"]


def test_profile_of_the_world_takes_no_other_detector(refused, model, words):
    said = refused("profile", "--model", model, "--corpus", "world", "--detector", words)
    assert "own parser" in said and "--corpus valuetexts" in said
