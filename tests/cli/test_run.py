"""`valign run` and `valign report`: one command, a table, a folder that holds everything."""

import json

import pytest

from tests.cli.conftest import VALUES, typed
from tests.lm.tiny import DENSE
from valign.control import load
from valign.study.results import Results, read_rows


def strict(text: str):
    """JSON without NaN and infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no strict JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "finished"


@pytest.fixture
def run(command, run_command, model, finished):
    """A finished run of CAA, made once."""
    if not (finished / "results.json").is_file():
        assert command(*run_command(model, finished)).code == 0
    return finished


def test_the_table_names_methods_doses_and_where_everything_lies(
    command, run_command, model, tmp_path
):
    said = command(*run_command(model, tmp_path / "run"))
    assert said.code == 0, said
    assert all(name in said.out for name in ("none", "random", "prompt", "caa", "0.05", "gain"))
    for name in ("report.html", "results.json", "controls"):
        assert f"{tmp_path / 'run' / name}\n" in said.out  # whole, on one line


def test_the_folder_holds_plan_rows_numbers_page_and_controls(run):
    names = {path.name for path in run.iterdir()}
    kept = {"run.json", "rows.jsonl", "results.json", "report.html", "controls", "cost.json"}
    assert names - {".lock"} == kept
    controls = [load(path) for path in (run / "controls").iterdir()]
    assert {c.method for c in controls} == {"random", "prompt", "caa"}
    assert all(c.provenance["dose"]["p95"] > 0 for c in controls)
    plan = strict((run / "run.json").read_text())
    assert plan["methods"] == ["none", "random", "prompt", "caa"] and plan["doses"] == [0.05]


def test_rows_are_the_plan_and_nothing_else(run):
    rows = list(read_rows(run / "rows.jsonl"))
    keys = [row.key for row in rows]
    assert len(set(keys)) == len(keys) == (5 + 3) * (1 + 4)
    assert {row.method for row in rows} == {"none", "random", "prompt", "caa"}
    assert {row.target for row in rows} == {"", "benevolence=+1"}
    assert all(tuple(row.scores) == VALUES for row in rows)


def test_results_are_strict_json_with_everything_that_made_them(run):
    strict((run / "results.json").read_text())
    results = Results.read(run)
    assert results.versions["torch"] and results.versions["valign"]
    assert results.model.fingerprint and results.corpus.fingerprint
    assert results.seeds == [0] and results.detectors.judge.startswith("wordlist")
    doses = {b.method: b.targets[0].dose for b in results.blocks}
    assert doses["none"] is None and doses["prompt"].asked is None
    assert doses["caa"].p95.value == pytest.approx(0.05, rel=0.25)


def test_words_that_moved_the_judge_are_marked_in_file_and_page(run):
    samples = Results.read(run).samples
    words = {
        sample.answers[label][mark.start : mark.end]
        for sample in samples
        for label, marks in sample.marks.items()
        for mark in marks
    }
    assert words and words <= {
        word for s in samples for a in s.answers.values() for word in a.split()
    }
    page = (run / "report.html").read_text("utf-8")
    assert all(f">{word}</mark>" in page for word in words)


def test_the_page_is_whole(run):
    page = (run / "report.html").read_text("utf-8")
    assert page.rstrip().endswith("</html>") and "benevolence" in page


def test_json_prints_the_results_file_and_nothing_else(command, run_command, model, run):
    said = command(*run_command(model, run, "--json"))
    assert said.code == 0
    assert strict(said.out) == strict((run / "results.json").read_text())


def test_a_finished_run_is_not_made_again(command, run_command, model, run):
    before = (run / "rows.jsonl").read_bytes()
    stamps = {p.name: p.stat().st_mtime_ns for p in (run / "controls").iterdir()}
    numbers = Results.read(run)
    assert command(*run_command(model, run)).code == 0
    assert (run / "rows.jsonl").read_bytes() == before
    assert {p.name: p.stat().st_mtime_ns for p in (run / "controls").iterdir()} == stamps
    again = Results.read(run)
    free = {"cost"}
    for old, new in zip(numbers.blocks, again.blocks, strict=True):
        assert old.model_dump_json(exclude=free) == new.model_dump_json(exclude=free)


def test_report_writes_the_page_again_and_prints_its_path(command, run):
    (run / "report.html").unlink()
    said = command("report", run)
    assert said.code == 0 and said.out == f"{run / 'report.html'}\n"
    assert (run / "report.html").stat().st_size > 1000
    assert command("report", run / "results.json").code == 0


def test_report_needs_only_the_numbers(command, run, tmp_path):
    (tmp_path / "results.json").write_bytes((run / "results.json").read_bytes())
    assert command("report", tmp_path).code == 0 and (tmp_path / "report.html").is_file()


def test_report_markdown_is_a_table(command, run):
    said = command("report", run, "--markdown")
    assert said.code == 0
    table = [line for line in said.out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert all(any(name in line for line in table) for name in ("none", "random", "prompt", "caa"))


def test_report_of_no_run_is_refused(refused, tmp_path):
    assert "valign run" in refused("report", tmp_path / "nowhere")
    assert "valign run" in refused("report", tmp_path)
    (tmp_path / "results.json").write_text("{}")
    assert "schema" in refused("report", tmp_path)


def test_settings_and_labels_reach_table_and_control(command, run_command, model, tmp_path):
    said = command(*run_command(model, tmp_path / "run", "--set", "layers=1"))
    assert said.code == 0 and "caa[layers=1]" in said.out
    (block,) = [b for b in Results.read(tmp_path / "run").blocks if b.method.startswith("caa")]
    assert block.settings == {"layers": "1"} and block.targets[0].receipt.sites == ["resid:1"]


def test_several_methods_values_doses_and_seeds(command, run_command, model, tmp_path):
    said = command(
        *run_command(model, tmp_path / "run", "--method", "logit-bias", "--toward", "power=0.5",
                     "--away", "security", "--dose", 0.1, "--seed", 0, "--seed", 1)
    )  # fmt: skip
    assert said.code == 0, said
    results = Results.read(tmp_path / "run")
    (target,) = {t.target for b in results.blocks for t in b.targets}
    assert target == "power=+0.5,security=-1,benevolence=+1"
    found = {(b.method, b.dose) for b in results.blocks}
    dosed = {(m, d) for m in ("random", "caa", "logit-bias") for d in (0.05, 0.1)}
    assert found == dosed | {("none", None), ("prompt", None)}
    assert results.seeds == [0, 1] and {c.method for c in results.curves} >= {"caa", "random"}


def test_a_trained_method_acts_as_fitted_unless_a_dose_is_asked_for(
    command, run_command, model, tmp_path
):
    few = ("--set", "epochs=1", "--set", "bridge_epochs=1", "--set", "pairs=8")
    arguments = run_command(model, tmp_path / "run", *few, method="svgt")
    at = arguments.index("--dose")
    del arguments[at : at + 2]
    said = command(*arguments)
    assert said.code == 0, said
    blocks = {(b.method.split("[")[0], b.dose): b for b in Results.read(tmp_path / "run").blocks}
    assert set(blocks) == {("none", None), ("random", 0.5), ("prompt", None), ("svgt", None)}
    assert blocks["svgt", None].targets[0].dose.p95.value > 0


def test_a_dose_that_is_no_number_is_refused(refused, run_command, model, tmp_path):
    arguments = run_command(model, tmp_path / "run")
    arguments[arguments.index("--dose") + 1] = "much"
    said = refused(*arguments)
    assert "much" in said and "0.5" in said and "fitted" in said


def test_toward_each_steers_to_every_value_in_turn(
    command, run_command, model, tmp_path, monkeypatch
):
    # Only an instruction needs no pairs for every value; the random row needs CAA's.
    monkeypatch.setattr("valign.cli.run.BASELINES", ("none", "prompt"))
    arguments = run_command(model, tmp_path / "run", method="prompt")
    arguments[arguments.index("benevolence")] = "each"
    assert command(*arguments).code == 0
    (block,) = [b for b in Results.read(tmp_path / "run").blocks if b.method == "prompt"]
    assert [t.target for t in block.targets] == [f"{v}=+1" for v in VALUES]


@pytest.mark.parametrize("family", DENSE)
@pytest.mark.parametrize("method", ["caa", "neva"])
def test_every_family_ends_with_a_report(
    command, run_command, model_folder, tmp_path, family, method
):
    said = command(*run_command(model_folder(family), tmp_path / "run", method=method))
    assert said.code == 0, said
    assert (tmp_path / "run" / "report.html").is_file()
    (block,) = [b for b in Results.read(tmp_path / "run").blocks if b.method == method]
    assert block.targets[0].receipt.sites


def test_a_mixture_of_experts_runs_what_edits_the_residual_stream(
    command, run_command, model_folder, tmp_path
):
    said = command(*run_command(model_folder("mixtral"), tmp_path / "run"))
    assert said.code == 0, said
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_method_the_family_cannot_run_is_refused_by_name_before_any_answer(
    refused, run_command, model_folder, tmp_path
):
    said = refused(*run_command(model_folder("mixtral"), tmp_path / "run", method="neva"))
    assert "neva cannot run" in said and "mixture of experts" in said and "residual stream" in said
    assert (tmp_path / "run" / "rows.jsonl").read_text() == ""
    assert not list((tmp_path / "run" / "controls").iterdir())


@pytest.mark.parametrize(
    "shape", [dict(chat=False), dict(tie_word_embeddings=True), dict(num_hidden_layers=1)]
)
def test_models_without_template_with_tied_embeddings_or_one_layer(
    command, run_command, model_folder, tmp_path, shape
):
    said = command(*run_command(model_folder("llama", **shape), tmp_path / "run"))
    assert said.code == 0, said
    assert (tmp_path / "run" / "report.html").is_file()


def test_bfloat16(command, run_command, model, tmp_path):
    said = command(*run_command(model, tmp_path / "run", "--dtype", "bfloat16", "--dose", 0.1))
    assert said.code == 0, said
    assert Results.read(tmp_path / "run").model.dtype == "bfloat16"


def test_as_its_own_process(run_command, model, tmp_path):
    with typed(run_command(model, tmp_path / "run", "--json")) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    found = strict(out)
    assert found["command"].startswith("valign run --model") and "--json" in found["command"]
