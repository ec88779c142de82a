"""`valign fit`: a control from one command, which goes on after a stop."""

import json

import pytest

from valign.control import BridgeControl, load


@pytest.fixture
def fit_command(model, corpus):
    def arguments(method, out, *more):
        own = ["fit", method, "--model", model, "--corpus", corpus, "--out", out]
        return [str(a) for a in [*own, "--toward", "benevolence", *more]]

    return arguments


SMALL = ("--set", "size=16", "--set", "epochs=1", "--set", "svgt.bridge_epochs=1")


def test_any_method_is_fitted_and_saved(command, fit_command, tmp_path):
    said = command(*fit_command("caa", tmp_path / "c", "--set", "layers=1"))
    assert said.code == 0, said
    assert said.out == f"{tmp_path / 'c' / 'control.safetensors'}\n"
    assert load(tmp_path / "c").provenance["settings"]["layers"] == [1]


def test_svgt_is_fitted_generates_and_leaves_no_checkpoints(command, fit_command, model, tmp_path):
    said = command(*fit_command("svgt", tmp_path / "c", *SMALL, "--json"))
    assert said.code == 0, said
    assert json.loads(said.out)["method"] == "svgt"
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["control.safetensors"]
    control = load(tmp_path / "c")
    assert isinstance(control, BridgeControl) and control.goals == {"benevolence": 2.0}
    said = command("generate", "rest or work ?", "--model", model, "--control", tmp_path / "c",
                   "--max-new-tokens", 6, "--json")  # fmt: skip
    assert said.code == 0, said
    receipt = json.loads(said.out)["receipt"]
    assert receipt["guidance"]["moments"][0] == 0 and receipt["sites"] == ["resid:1"]


def test_what_lies_in_the_folder_stays_and_its_name_may_hold_a_comma(
    command, fit_command, tmp_path
):
    mine = tmp_path / "a,b" / "checkpoints" / "mine.pt"
    mine.parent.mkdir(parents=True)
    mine.write_text("weeks of work")
    for method in ("caa", "svgt"):
        said = command(*fit_command(method, tmp_path / "a,b", *(SMALL if method == "svgt" else ())))
        assert said.code == 0, said
    assert mine.read_text() == "weeks of work"


def test_a_dose_is_set_on_request(command, fit_command, tmp_path):
    said = command(*fit_command("caa", tmp_path / "c", "--dose", 0.05))
    assert said.code == 0, said
    assert load(tmp_path / "c").provenance["dose"]["p95"] == pytest.approx(0.05, rel=0.2)


def test_bad_requests_are_refused_before_the_model_is_loaded(refused, fit_command, tmp_path):
    assert "mean neva" in refused(*fit_command("nevva", tmp_path / "c"))
    assert "mean size" in refused(*fit_command("svgt", tmp_path / "c", "--set", "sise=16"))
    assert "key=value" in refused(*fit_command("svgt", tmp_path / "c", "--set", "size"))
    assert "no strength" in refused(*fit_command("prompt", tmp_path / "c", "--dose", 1))
    assert "--toward each" in refused(*fit_command("caa", tmp_path / "c", "--toward", "each"))
    assert not (tmp_path / "c").exists()


def test_svgt_runs_through_a_whole_run(command, run_command, model, tmp_path):
    said = command(
        *run_command(model, tmp_path / "run", *SMALL[:-1], "bridge_epochs=4", "--dose", 0.001,
                     method="svgt")
    )  # fmt: skip
    assert said.code == 0, said
    assert (tmp_path / "run" / "report.html").is_file()
