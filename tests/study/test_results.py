import json
import math
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.report.fake import fake_results
from valign.measure import Estimate
from valign.study.results import (
    DetectorInfo,
    Measured,
    Metrics,
    Results,
    ResultsError,
    Row,
    read_rows,
)

SMALL = dict(methods=("none", "neva"), doses=(0.1,), targets=("power",), n_prompts=20)


def test_what_is_written_is_read_back(tmp_path):
    results = fake_results(**SMALL)
    path = results.write(tmp_path / "run" / "results.json")
    assert Results.read(path).to_json() == Results.read(path.parent).to_json() == results.to_json()
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_undefined_numbers_are_null_in_strict_json(tmp_path):
    results = fake_results(**SMALL)
    odd = Measured(value=math.nan, low=-math.inf, high=math.inf, n=3)
    results.blocks[0].summary.nlr = odd

    def refuse(text):
        raise AssertionError(f"{text} is no strict JSON")

    raw = json.loads(results.to_json(), parse_constant=refuse)
    assert raw["blocks"][0]["summary"]["nlr"]["value"] is None
    back = Results.read(results.write(tmp_path / "results.json")).blocks[0].summary.nlr
    assert math.isnan(back.value) and math.isnan(back.high) and not back.defined


def test_an_estimate_stands_for_a_measured_number_and_back():
    e = Estimate(0.5, 0.4, 0.6, 30, 0.9)
    assert Measured.model_validate(e).estimate == e


def test_tuning_and_judging_detector_must_differ():
    with pytest.raises(ValidationError, match="two different detectors"):
        DetectorInfo(judge="a-1", tune="a-1")


def test_the_fingerprint_of_the_judge_is_written_where_it_is_known(tmp_path):
    results = fake_results(**SMALL)
    assert "judge_fingerprint" not in results.to_json()
    results.detectors.judge_fingerprint = "0123"
    back = Results.read(results.write(tmp_path / "results.json"))
    assert back.detectors.judge_fingerprint == "0123"


@pytest.mark.parametrize("name", ["full_table", "svgt_values"])
def test_committed_results_are_read_and_written_as_they_are(name):
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.json"
    assert Results.read(path).to_json() == path.read_text("utf-8")


def test_matrices_must_fit_the_system():
    results = fake_results(**SMALL)
    blocks = [b.model_copy(update={"c0": b.c0[:3]}) for b in results.blocks]
    with pytest.raises(ValidationError, match="c0 must hold 10 values"):
        Results.model_validate({**results.model_dump(by_alias=True), "blocks": blocks})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "schema None"),
        ('{"schema": "valign-results/9"}', "valign-results/9"),
        ('{"schema": "valign-results/1"}', "faults"),
    ],
)
def test_files_that_are_no_results_are_refused_by_name(tmp_path, text, says):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=re.escape(says)):
        Results.read(path)
    with pytest.raises(ResultsError, match="valign run"):
        Results.read(tmp_path / "nowhere.json")


def test_rows_survive_a_killed_run(tmp_path):
    rows = [Row(run="r", method="caa", target="power=+1", dose=0.1, prompt_id=f"d-{k}",
                prompt="Go?\u2028\n", answer="Yes \ud83d\ude00".encode("utf-16", "surrogatepass")
                .decode("utf-16"), scores={"power": math.nan}) for k in range(3)]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(row.line() + "\n" for row in rows) + rows[0].line()[:20], "utf-8")
    back = list(read_rows(path))
    assert [row.key for row in back] == [row.key for row in rows]
    assert back[0].prompt == "Go?\u2028\n" and math.isnan(back[0].scores["power"])


def test_a_broken_row_inside_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"run": 1}\n')
    with pytest.raises(ResultsError, match="line 1"):
        list(read_rows(path))


def test_the_documented_fields_are_the_fields():
    text = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z][a-z0-9_]*)`", text))
    assert set(Row.model_fields) <= named
    assert set(Metrics.model_fields) <= named
    top = {f.alias or name for name, f in Results.model_fields.items()}
    assert top <= named


def test_the_documentation_runs(capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "results.md").read_text("utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "docs/results.md", "exec"), {})
    assert "gain on benevolence: 0." in capsys.readouterr().out
