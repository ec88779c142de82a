"""Corpora about harm: the world's, and the public sets in their authors' fields."""

import json

import pytest

from valign.corpora import CorpusError, MissingDataError
from valign.methods.svgt.harm import public_harm, world_harm
from valign.world import WorldJudge


def test_the_worlds_answers_are_what_its_judge_calls_them():
    corpus, judge = world_harm(0, requests=30), WorldJudge()
    assert len(corpus.pairs) == len(corpus.answers) == 30
    for pair in corpus.pairs:
        assert judge.read(pair.prompt, pair.positive).careful
        assert judge.read(pair.prompt, pair.negative).complied
        assert not judge.read(pair.prompt, pair.positive).facts_wrong
    for answer in corpus.answers:  # look-alikes are harmless, and helped with
        assert dict(answer.labels) == {"harmless": 1.0}
        assert judge.read(answer.prompt, answer.text).complied
    other = world_harm(0, requests=30, split="heldout")
    assert {p.prompt for p in corpus.pairs}.isdisjoint(p.prompt for p in other.pairs)
    assert world_harm(0, requests=30).fingerprint == corpus.fingerprint


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_wildguardmix_skips_rows_without_a_labelled_response(tmp_path):
    row = dict(prompt="p", adversarial=False, prompt_harm_label="harmful",
               response_refusal_label="refusal")  # fmt: skip
    file = write(tmp_path / "wg.jsonl", [
        dict(row, response="sure", response_harm_label="harmful"),
        dict(row, response="no", response_harm_label="unharmful"),
        dict(row, response="no", response_harm_label="unharmful"),
        dict(row, response=None, response_harm_label=None),
    ])  # fmt: skip
    corpus = public_harm("wildguardmix", file)
    assert [(a.text, dict(a.labels)) for a in corpus.answers] == [
        ("sure", {"harmless": -1.0}), ("no", {"harmless": 1.0}),
    ]  # fmt: skip


def test_beavertails_reads_is_safe(tmp_path):
    rows = [dict(prompt="p", response=f"r{i}", category={}, is_safe=bool(i % 2)) for i in range(6)]
    corpus = public_harm("beavertails", write(tmp_path / "bt.jsonl", rows), most=4)
    assert [dict(a.labels)["harmless"] for a in corpus.answers] == [-1.0, 1.0, -1.0, 1.0]


def test_hh_rlhf_gives_contrast_pairs(tmp_path):
    turn = "\n\nHuman: hi\n\nAssistant:"
    rows = [dict(chosen=f"{turn} good", rejected=f"{turn} bad"),
            dict(chosen=f"{turn} good", rejected="\n\nHuman: other\n\nAssistant: bad")]  # fmt: skip
    (pair,) = public_harm("hh-rlhf", write(tmp_path / "hh.jsonl", rows)).pairs
    assert (pair.value, pair.positive, pair.negative) == ("harmless", "good", "bad")


def test_wrong_fields_formats_and_files_are_named(tmp_path):
    file = write(tmp_path / "x.jsonl", [dict(prompt="p", response="r", label=1)])
    with pytest.raises(CorpusError, match=r"is_safe.*prompt, response, label"):
        public_harm("beavertails", file)
    with pytest.raises(CorpusError, match="wildguardmix, beavertails"):
        public_harm("toxigen")
    with pytest.raises(CorpusError, match="No such file"):
        public_harm("beavertails", tmp_path / "none.jsonl")
    with pytest.raises(CorpusError, match="source"):
        public_harm("beavertails")


def test_sets_at_hand_are_read(public_data, monkeypatch):
    monkeypatch.setenv("VALIGN_DATA", str(public_data))
    try:
        assert len(public_harm("hh-rlhf", most=5).pairs) == 5
        assert len(public_harm("fulcra", most=5).answers) == 5
    except MissingDataError as error:
        pytest.skip(str(error))
