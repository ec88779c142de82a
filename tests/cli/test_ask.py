"""`valign ask`, `valign drift` and `valign svo` on tiny models that know the answer labels."""

import json

import pytest

from tests.cli.conftest import VALUES
from tests.study.asking import reader_lm
from valign.values.questionnaires import load_questionnaire


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Two checkpoints, as save_pretrained writes them."""
    folders = []
    for seed in (0, 1):
        lm = reader_lm(seed=seed)
        folders.append(tmp_path_factory.mktemp("readers") / f"reader-{seed}")
        lm.model.save_pretrained(folders[-1])
        lm.tokenizer.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A questionnaire of one item a value."""
    path = tmp_path_factory.mktemp("forms") / "short.yaml"
    texts = {item.value: item.text for item in load_questionnaire("portraits10").items}
    items = "\n".join(f"  {value}: [{json.dumps(texts[value])}]" for value in VALUES)
    path.write_text(
        "name: short\ntitle: Ten short items\nsystem: schwartz10\nsource: test\nlicence: none\n"
        "question: 'How much is this person like you? {item}'\nscale:\n"
        "  - {says: nothing like me, points: 1}\n  - {says: exactly like me, points: 2}\n"
        f"items:\n{items}\n"
    )
    return path


def test_ask_prints_a_profile_and_how_it_was_answered(command, readers, short):
    said = command("ask", "--model", readers[0], "-q", short, "--respondents", 4)
    assert said.code == 0, said
    assert "self-report" in said.out and all(value in said.out for value in VALUES)
    assert "probability on the labels" in said.out and "same place" in said.out
    # a random model does not know what the labels are for
    assert "--scoring generated" in said.out and "follow the place" in said.out


def test_ask_in_json_is_strict_and_complete(command, readers, short, tmp_path):
    out = tmp_path / "deep" / "ask.json"
    said = command("ask", "--model", readers[0], "-q", short, "--respondents", 4, "--json",
                   "--out", out, "--shuffled", "--pairs", 2, "--seed", 3)  # fmt: skip
    assert said.code == 0, said
    found = json.loads(said.out, parse_constant=lambda name: pytest.fail(name))
    assert found == json.loads(out.read_text("utf-8"))
    assert tuple(found["values"]) == VALUES and found["kind"] == "self-report"
    cell = found["values"]["power"]["centred"]
    assert cell["low"] <= cell["value"] <= cell["high"] and cell["n"] == 4
    assert sum(v["centred"]["value"] for v in found["values"].values()) == pytest.approx(0)
    assert found["seed"] == 3 and found["pairs"] == 2 and found["respondents"] == 4
    assert found["fingerprint"] and "torch" in found["versions"]
    again = command("ask", "--model", readers[0], "-q", short, "--respondents", 4, "--json",
                    "--shuffled", "--pairs", 2, "--seed", 3)  # fmt: skip
    assert json.loads(again.out) == found


def test_ask_reads_generated_answers_and_tests_the_circle(command, readers, short):
    said = command("ask", "--model", readers[0], "-q", short, "--respondents", 3, "--json",
                   "--scoring", "generated")  # fmt: skip
    assert said.code == 0, said
    answers = json.loads(said.out)["answers"]
    assert answers["label_mass"] is None and 0 <= answers["invalid"]["value"] <= 1
    said = command("ask", "--model", readers[0], "-q", short, "--respondents", 12, "--anchored",
                   "--structure", "--json")  # fmt: skip
    assert said.code == 0, said
    circle = json.loads(said.out)["structure"]["circle_rank"]
    assert -1 <= circle["estimate"]["low"] <= circle["estimate"]["high"] <= 1
    assert 0 < circle["p"] <= 1


def test_drift_between_checkpoints(command, readers, short):
    said = command("drift", *readers, "-q", short, "--respondents", 6, "--target", "power",
                   "--json")  # fmt: skip
    assert said.code == 0, said
    found = json.loads(said.out)
    assert found["before"]["fingerprint"] != found["after"]["fingerprint"]
    shift = found["values"]["power"]["shift"]["value"]
    assert shift == pytest.approx(
        found["values"]["power"]["after"]["value"] - found["values"]["power"]["before"]["value"]
    )
    assert found["tax"]["gain"]["n"] == 6 and len(found["tax"]["gnd"]) == 10
    assert 0 <= found["co_movement"]["nvat"]["estimate"]["value"] <= 1
    table = command("drift", *readers, "-q", short, "--respondents", 6, "--target", "power")
    assert table.code == 0 and "moved" in table.out and "nVAT" in table.out


def test_a_checkpoint_compared_with_itself_has_not_moved(command, readers, short):
    said = command("drift", readers[0], readers[0], "-q", short, "--respondents", 3, "--json")
    found = json.loads(said.out)
    assert not any(v["moved"] or v["shift"]["value"] for v in found["values"].values())
    assert found["size"]["value"] == 0 and found["tax"] is None


def test_svo_stands_beside_random_answers(command, readers):
    said = command("svo", "--model", readers[0], "--repeats", 3, "--as", "prosocial", "--json")
    assert said.code == 0, said
    found = json.loads(said.out)
    assert found["chance_angle"] == pytest.approx(22.7, abs=0.05)
    assert sum(t["value"] for t in found["types"].values()) == pytest.approx(1)
    assert found["rationality"]["value"] <= 0
    said = command("svo", "--model", readers[0], "--repeats", 2)
    assert said.code == 0 and "random answers" in said.out and "competitive" in said.out


def test_bad_input_is_refused_before_a_model_is_loaded(refused, short):
    nowhere = ("--model", "nowhere")
    assert "Did you mean portraits10" in refused("ask", *nowhere, "-q", "portrait10")
    assert "--items FILE" in refused("ask", *nowhere, "-q", "pvq40")
    assert "logprob or generated" in refused("ask", *nowhere, "-q", short, "--scoring", "soft")
    assert "not scored" in refused("drift", "a", "b", "-q", short, "--target", "kindness")
    assert "prosocial" in refused("svo", *nowhere, "--as", "kind")
    assert "2304" in refused("ask", *nowhere, "-q", short, "--respondents", 9999)


def test_a_questionnaire_without_circle_is_not_tested_for_one(refused, tmp_path):
    path = tmp_path / "mood.yaml"
    path.write_text(
        "name: mood\ntitle: Mood\nsource: me\nlicence: none\nquestion: 'Is it so? {item}'\n"
        "scale:\n  - {says: 'no', points: 0}\n  - {says: 'yes', points: 1}\n"
        "items:\n  calm: [I keep calm]\n  zest: [I like noise]\n"
    )
    assert "no value system" in refused("ask", "--model", "x", "-q", path, "--structure")
    assert "no value system" in refused("ask", "--model", "x", "-q", path, "--anchored")


def test_a_tokenizer_that_tells_no_labels_apart_is_refused(refused, model, short):
    assert "labels alike" in refused("ask", "--model", model, "-q", short)
