"""Bad input to `valign run`: exit code 2, no traceback, what was wrong and what to type next."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.cli.conftest import write_corpus, write_jsonl


@pytest.fixture
def refused_run(refused, run_command, model, tmp_path):
    """A small run with something wrong in it; returns the error."""

    def run(*more, model=model, out=tmp_path / "run", **options):
        return refused(*run_command(model, out, *more, **options))

    return run


@pytest.fixture
def copied(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def test_an_unknown_value_suggests_the_nearest(refused_run):
    said = refused_run("--toward", "benevolance")
    assert "'benevolance'" in said and "benevolence" in said.replace("benevolance", "")
    assert "valign values schwartz10" in said


def test_an_unknown_method_suggests_the_nearest(refused_run):
    said = refused_run("--method", "conwa")
    assert "Did you mean conva" in said and "caa" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layerz=1", "Did you mean layers"),
        ("caa.layerz=1", "Did you mean layers"),
        ("caa.layers=x", "caa: layers"),
        ("caa.layers=9", "layers 0 to 2"),
        ("neva.share=0.1", "--method neva"),
        ("layers", "method.key=value"),
        ("random.reference=none", "random"),
    ],
)
def test_a_setting_that_does_not_fit_says_what_does(refused_run, text, says):
    assert says in refused_run("--set", text)


def test_an_unknown_detector_suggests_the_nearest(refused_run):
    assert "Did you mean wordlist" in refused_run("--detector", "wordlits")


def test_an_unknown_corpus_suggests_the_nearest(refused_run):
    assert "Did you mean valuetexts" in refused_run("--corpus", "valuetext")


def test_a_detector_of_other_values_is_refused(refused_run, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"honesty": ["true"], "harmlessness": ["safe"]}))
    said = refused_run("--detector", path)
    assert "schwartz10" in said and "honesty" in said


def test_a_detector_beside_the_worlds_own_judge_is_refused(refused_run):
    said = refused_run("--corpus", "world")
    assert "own parser" in said and "Leave --detector out" in said


def test_a_missing_model_is_named(refused_run):
    assert "No such model folder: ./nowhere" in refused_run(model="./nowhere")


def test_a_folder_without_config_is_no_model(refused_run, tmp_path):
    said = refused_run(model=tmp_path)
    assert "no config.json" in said and "save_pretrained" in said


def test_truncated_weights_are_refused(refused_run, copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "Cannot load the model" in refused_run(model=copied)


def test_weights_that_are_not_numbers_are_refused(refused_run, copied):
    weights = load_file(copied / "model.safetensors")
    name = next(n for n in weights if "down_proj" in n)
    weights[name][0, 0] = float("nan")
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    said = refused_run(model=copied)
    assert "not finite" in said and name in said


def test_missing_weights_are_refused(refused_run, copied):
    weights = load_file(copied / "model.safetensors")
    name = next(n for n in weights if "down_proj" in n)
    del weights[name]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights" in refused_run(model=copied)


def test_an_unknown_number_type_is_refused(refused_run):
    assert "float33" in refused_run("--dtype", "float33")


@pytest.mark.parametrize("dose", ["0", "-0.5", "nan", "inf"])
def test_doses_are_positive_numbers_of_nats(refused_run, dose):
    said = refused_run("--dose", dose)
    assert "positive number of nats" in said and "0.5" in said


def test_a_dose_out_of_reach_is_said_before_any_answer(refused_run, tmp_path):
    said = refused_run("--dose", 50)
    assert "nats" in said and "caa" in said
    assert (tmp_path / "run" / "rows.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [("--prompts", 0), ("--neutral", -1)],
)
def test_counts_out_of_range_name_the_option(refused_run, option, value):
    assert option in refused_run(option, value)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--batch-size", 0, "batch_size"), ("--max-new-tokens", 0, "max_new_tokens"),
     ("--temperature", -1, "temperature")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(refused_run, option, value, says):
    said = refused_run(option, value)
    assert says in said or option in said


@pytest.mark.parametrize("twice", [["--seed", 1, "--seed", 1], ["--dose", 0.05]])
def test_the_same_twice_is_refused(refused_run, twice):
    assert "twice" in refused_run(*twice)


def test_each_stands_alone(refused_run):
    assert "--toward each" in refused_run("--toward", "each")
    assert "--toward each" in refused_run("--toward", "each", "--away", "power")


def test_a_target_must_be_named_and_readable(refused, refused_run, model, tmp_path):
    said = refused("run", "--model", model, "--detector", "wordlist", "--out", tmp_path / "run")
    assert "--toward" in said and "valign values schwartz10" in said
    assert "twice" in refused_run("--away", "benevolence")
    assert "outside [-1, 1]" in refused_run("--toward", "power=3")
    assert "Cannot read" in refused_run("--toward", "power==1")


def test_a_prompt_longer_than_the_context_is_refused(refused_run, tmp_path):
    folder = write_corpus(tmp_path / "long")
    with (folder / "dilemmas.jsonl").open("a") as file:
        for _ in range(8):  # whichever half they fall into
            file.write(json.dumps({"value": "security", "text": "help " * 300}) + "\n")
    said = refused_run("--corpus", folder)
    assert "256" in said and "Shorten" in said


def test_a_corpus_row_without_text_is_named_by_its_line(refused_run, tmp_path):
    folder = write_corpus(tmp_path / "broken")
    with (folder / "dilemmas.jsonl").open("a") as file:
        file.write('{"value": "power"}\n')
    said = refused_run("--corpus", folder)
    assert "dilemmas.jsonl line 31" in said and "text" in said


def test_a_corpus_row_with_an_unknown_value_is_named(refused_run, tmp_path):
    folder = write_corpus(tmp_path / "broken")
    write_jsonl(folder / "dilemmas.jsonl", [{"value": "pwer", "text": "rest ?"}])
    said = refused_run("--corpus", folder)
    assert "line 1" in said and "power" in said


def test_a_corpus_that_is_not_utf8_or_empty_is_refused(refused_run, tmp_path):
    folder = write_corpus(tmp_path / "latin")
    (folder / "pairs.jsonl").write_bytes('{"value": "café"}'.encode("latin-1"))
    said = refused_run("--corpus", folder)
    assert "pairs.jsonl" in said and "UTF-8" in said
    (tmp_path / "none").mkdir()
    assert "pairs.jsonl" in refused_run("--corpus", tmp_path / "none")


def test_too_few_pairs_and_too_few_dilemmas_are_said(refused_run, tmp_path):
    few = write_corpus(tmp_path / "few", pairs=3)
    said = refused_run("--corpus", few)
    assert "3 contrast pairs for benevolence" in said and "Add rows" in said
    alone = write_corpus(tmp_path / "alone", dilemmas=1)
    said = refused_run("--corpus", alone)
    assert "1 dilemmas" in said and "Add dilemmas" in said


def test_a_place_that_cannot_be_written_is_refused(refused_run, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    said = refused_run(out=file / "run")
    assert "Cannot write" in said and "--out" in said
    assert "Cannot write" in refused_run(out=file)


def test_a_folder_that_holds_another_run_is_left_as_it_is(
    command, refused_run, run_command, model, tmp_path
):
    out = tmp_path / "run"
    assert command(*run_command(model, out)).code == 0
    rows = out / "rows.jsonl"
    rows.write_bytes(rows.read_bytes() + b'{"half')  # somebody else's, perhaps being written
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    said = refused_run("--dose", 0.1, "--seed", 4)
    assert "another run" in said and "doses" in said and "seeds" in said and "--out" in said
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_corpus_that_changed_makes_another_run(command, refused, run_command, model, tmp_path):
    folder = write_corpus(tmp_path / "texts")
    arguments = run_command(model, tmp_path / "run", "--corpus", folder)
    assert command(*arguments).code == 0
    write_corpus(folder, pairs=11)
    said = refused(*arguments)
    assert "another run" in said and "texts" in said


def test_a_damaged_plan_is_refused(refused_run, tmp_path):
    out = tmp_path / "run"
    for text in ("{", "[]"):
        out.mkdir(exist_ok=True)
        (out / "run.json").write_text(text)
        said = refused_run(out=out)
        assert "run.json is damaged" in said and "--out" in said


def test_damaged_rows_are_named_by_their_line(command, refused_run, run_command, model, tmp_path):
    out = tmp_path / "run"
    assert command(*run_command(model, out)).code == 0
    lines = (out / "rows.jsonl").read_text().splitlines()
    (out / "rows.jsonl").write_text("\n".join([lines[0], lines[1][:30], *lines[2:]]) + "\n")
    assert "rows.jsonl, line 2" in refused_run()


def test_a_damaged_control_is_refused_and_fitted_again_once_deleted(
    command, refused_run, run_command, model, tmp_path
):
    out = tmp_path / "run"
    assert command(*run_command(model, out)).code == 0
    (path,) = (out / "controls").glob("caa*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    said = refused_run()
    assert "damaged" in said and path.name in said and "Delete the file" in said
    path.unlink()
    assert command(*run_command(model, out)).code == 0 and path.is_file()


def test_long_names_still_make_a_file_name_the_disk_takes(command, run_command, model, tmp_path):
    wanted = "power=+0.123456789,security=+0.123456789"
    repeated = "caa.layers=" + ",".join("1" * 90)
    said = command(*run_command(model, tmp_path / "run", "--toward", wanted, "--set", repeated))
    assert said.code == 0, said


@pytest.mark.parametrize(
    "typed",
    [
        ["score", "--detector", "wordlist"],
        ["translate", "--backend", "rules"],
        ["generate", "--model", "reference"],
        ["rewrite", "--model", "reference", "--instruction", "kinder"],
    ],
)
def test_the_name_of_a_file_is_not_taken_for_a_text(refused, tmp_path, typed):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "I want to win."}\n')
    said = refused(*typed, str(file)).replace("\n", "")
    assert "is a file" in said and "--file" in said
