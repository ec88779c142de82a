"""`valign fit rlev`: from questions that are worth different amounts to a control."""

import json

import pytest

from tests.cli.conftest import write_jsonl
from valign.cli.fit import UNFINISHED
from valign.control import load

pytest.importorskip("trl")
SMALL = [
    a
    for s in ("steps=2", "batch=4", "generations=4", "max_new_tokens=4", "lora_rank=2", "rate=0.01")
    for a in ("--set", s)
]


@pytest.fixture
def questions(tmp_path):
    rows = [{"prompt": f"should I w{i} ?", "answer": "the", "value": 0.02 * i} for i in range(10)]
    return write_jsonl(tmp_path / "exam.jsonl", rows)


def test_questions_of_a_file_become_a_control_that_generates(command, model, questions, tmp_path):
    fit = ("fit", "rlev", "--model", model, "--corpus", questions, *SMALL)
    said = command(*fit, "--out", tmp_path / "r")
    assert said.code == 0, said
    assert said.out.splitlines()[-1] == str(tmp_path / "r" / "control.safetensors")
    assert "2 questions it was not trained on" in said.out
    assert all(word in said.out for word in ("H-Acc", "density", "before", "after"))
    made = load(tmp_path / "r").provenance
    assert made["questions"] == {"taught": 8, "judged": 2} and made["settings"]["rate"] == 0.01
    assert not (tmp_path / "r" / UNFINISHED).exists()
    said = command("generate", "should I rest ?", "--model", model, "--control", tmp_path / "r",
                   "--max-new-tokens", 4, "--json")  # fmt: skip
    assert said.code == 0 and json.loads(said.out)["receipt"], said
    again = command(*fit, "--out", tmp_path / "again", "--json")
    assert json.loads(again.out)["exam"] == made["exam"]


def test_the_world_is_judged_by_its_parser(command, model, tmp_path, monkeypatch):
    monkeypatch.setattr("valign.cli.fit_rlev.WORLD_QUESTIONS", 6)
    said = command("fit", "rlev", "--model", model, "--corpus", "world", *SMALL,
                   "--out", tmp_path / "r")  # fmt: skip
    assert said.code == 0 and "1 questions" in said.out, said


def test_bad_requests_are_refused(refused, model, questions, tmp_path):
    fit = ("fit", "rlev", "--model", model, "--out", tmp_path / "r")
    assert "--corpus FILE.jsonl" in refused(*fit)
    assert "Leave --toward out" in refused(*fit, "--toward", "power", "--corpus", questions)
    assert "Leave --dose out" in refused(*fit, "--dose", 1, "--corpus", questions)
    assert "mean steps" in refused(*fit, "--set", "step=1", "--corpus", questions)
    assert "whole groups" in refused(*fit, "--set", "batch=6", "--corpus", questions)
    assert "No such file" in refused(*fit, "--corpus", tmp_path / "none.jsonl")
    rows = [{"prompt": "a", "answer": "b", "value": 0.1}, {"prompt": "a", "value": 3}]
    said = refused(*fit, "--corpus", write_jsonl(tmp_path / "bad.jsonl", rows))
    assert "bad.jsonl line 2, column answer" in said and "column value" in said
    assert not (tmp_path / "r").exists()


def test_rlev_explains_itself(command):
    said = command("methods", "rlev")
    assert said.code == 0 and "1 + min(alpha v(x), 1)" in said.out and "held_out" in said.out
