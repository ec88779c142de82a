"""Bundled texts, the door to all corpora, and users' own files."""

import csv
import json
import sys
import types

import pytest

from valign.corpora import Corpus, CorpusError, load_corpus, load_rewrites, load_shifts
from valign.values import Profile, load_system

TEN = load_system("schwartz10")


def write_jsonl(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def write_csv(path, header, *rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_bundled_texts_cover_every_value():
    corpus = load_corpus("valuetexts")
    assert corpus.system is TEN
    assert {len(corpus.pairs_of(v)) for v in TEN.names} == {85}
    assert {len(corpus.dilemmas_of(v)) for v in TEN.names} == {48}
    assert len(corpus.neutral) == 120 and all(row.answer for row in corpus.neutral)
    assert len(corpus.answers) == 142
    ids = [row.id for part in (corpus.pairs, corpus.dilemmas, corpus.answers, corpus.neutral)
           for row in part]  # fmt: skip
    assert len(ids) == len(set(ids))


def test_bundled_answers_are_signed():
    labels = {row.id: dict(row.labels) for row in load_corpus().answers}
    assert labels["a-02"] == {"security": 1.0, "stimulation": -1.0}


def test_rewrites_and_shifts():
    rewrites, shifts = load_rewrites(), load_shifts()
    assert len(rewrites) == 50 and len(shifts) == 149
    for row in rewrites:
        assert row.facts and row.target.named and row.rewrite != row.source
        assert all(bad.fault and bad.text != row.rewrite for bad in row.bad)
    (asked,) = [row.shift for row in shifts if row.id == "s-003"]
    assert asked == Profile.of(TEN, security=1, stimulation=-0.5)
    assert any(not row.shift.named for row in shifts)


def test_folder_of_jsonl_and_csv(tmp_path):
    write_jsonl(
        tmp_path / "pairs.jsonl",
        {"id": 7, "value": "power", "positive": "I lead.", "negative": "I sit.", "also": ["face"]}
        | {"also": ["achievement"], "prompt": "What do you do?", "mood": "dry"},
    )
    write_csv(
        tmp_path / "answers.csv",
        ["answer", "labels", "prompt"],
        ["Two lines,\nin quotes.", "power=-1,security=0.5", ""],
    )
    corpus = load_corpus(tmp_path)
    (pair,), (answer,) = corpus.pairs, corpus.answers
    assert (pair.id, pair.prompt, pair.also) == ("7", "What do you do?", ("achievement",))
    assert answer.id == "answers-1" and answer.text == "Two lines,\nin quotes."
    assert dict(answer.labels) == {"power": -1.0, "security": 0.5} and answer.prompt is None
    assert corpus.name == tmp_path.name and corpus.dilemmas == ()
    assert corpus.notes == ("pairs.jsonl: columns not used: mood",)


def test_csv_and_jsonl_of_the_same_rows_are_the_same_corpus(tmp_path):
    row = {"id": "a", "value": "power", "positive": "x, y", "negative": 'he said "no"',
           "context": "work"}  # fmt: skip
    for ending in ("one", "two"):
        (tmp_path / ending).mkdir()
    write_jsonl(tmp_path / "one" / "pairs.jsonl", row | {"also": ["face-saving"][:0]})
    write_csv(tmp_path / "two" / "pairs.csv", [*row, "also"], [*row.values(), ""])
    one, two = load_corpus(tmp_path / "one"), load_corpus(tmp_path / "two")
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"value": "power", "positive": "a", "negative": "b", "prompt": "q"}, "pairs"),
        ({"value": "power", "text": "Should I?"}, "dilemmas"),
        ({"answer": "No.", "labels": {"power": -1}, "prompt": "q"}, "answers"),
        ({"prompt": "q", "answer": "42"}, "neutral"),
    ],
)
def test_one_file_is_known_by_its_columns(tmp_path, row, kind):
    corpus = load_corpus(write_jsonl(tmp_path / "mine.jsonl", row))
    assert len(getattr(corpus, kind)) == 1
    assert sum(len(getattr(corpus, k)) for k in ("pairs", "dilemmas", "answers", "neutral")) == 1


def test_another_value_system(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", {"value": "honest", "text": "Should I tell?"})
    assert load_corpus(path, system="hh").dilemmas_of("honest")
    with pytest.raises(CorpusError, match="schwartz10 has no value 'honest'"):
        load_corpus(path)


PAIR = {"value": "power", "positive": "a", "negative": "b"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([PAIR, {"value": "power", "positive": "a"}], ["line 2", "column negative", "expected"]),
        ([PAIR | {"positive": ""}], ["line 1", "column positive", "at least 1 character"]),
        ([PAIR | {"positive": 3}], ["line 1", "column positive", "string", "3"]),
        ([PAIR | {"value": "powr"}], ["line 1", "'powr'", "power"]),
        ([PAIR | {"also": ["pwoer"]}], ["line 1", "'pwoer'", "power"]),
        ([PAIR | {"negative": "a"}], ["line 1", "same text"]),
        ([PAIR | {"id": "x"}, PAIR | {"id": "x"}], ["line 2", "column id", "'x'", "line 1"]),
        ([{"value": "power", "words": "?"}], ["columns value, words", "Expected", "positive"]),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, said):
    path = write_jsonl(tmp_path / "mine.jsonl", *rows)
    with pytest.raises(CorpusError) as caught:
        load_corpus(path)
    for part in said:
        assert part in str(caught.value)
    if "line" in said[0]:
        assert f"mine.jsonl {said[0]}" in str(caught.value)


def test_all_wrong_rows_are_counted(tmp_path):
    rows = [{"value": "power", "text": ""}] * 9
    with pytest.raises(CorpusError) as caught:
        load_corpus(write_jsonl(tmp_path / "d.jsonl", *rows))
    assert str(caught.value).count("column text") == 5 and "and 4 more" in str(caught.value)


def test_csv_rows_count_as_in_a_spreadsheet(tmp_path):
    header = ["value", "text"]
    path = write_csv(
        tmp_path / "d.csv", header, ["power", "two\nlines?"], [], ["power", "Why?"], ["pwr", "How?"]
    )
    with pytest.raises(CorpusError, match=r"d\.csv row 5: .*'pwr'"):
        load_corpus(path)
    path.write_text("value,text\npower,Should I stay, or go?\n")
    with pytest.raises(CorpusError, match=r"row 2 has 3 cells, the header 2"):
        load_corpus(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"value": "power", "text": "a"}\n{"value": ', "line 2 is not JSON"),
        (b'["power"]', "line 1: expected an object"),
        (b'{"value": "power", "text": "caf\xe9"}', "not UTF-8"),
        (b"", "has the columns (none)"),
    ],
)
def test_files_that_are_not_tables(tmp_path, content, said):
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        load_corpus(path)
    assert said in str(caught.value)


def test_line_separators_inside_texts_do_not_cut_rows(tmp_path):
    path = tmp_path / "d.jsonl"
    row = json.dumps({"value": "power", "text": "a\u2028b\x85c"}, ensure_ascii=False)
    path.write_text(row, encoding="utf-8")
    assert load_corpus(path).dilemmas[0].text == "a\u2028b\x85c"


def test_nothing_there(tmp_path):
    with pytest.raises(CorpusError, match="Did you mean valuetexts"):
        load_corpus("valuetext")
    with pytest.raises(CorpusError, match=r"none of pairs\.jsonl"):
        load_corpus(tmp_path)


def test_world_is_made_from_its_seed(monkeypatch):
    fake = types.ModuleType("valign.world.corpus")
    fake.world_corpus = lambda seed: Corpus(TEN, f"world-{seed}")
    monkeypatch.setitem(sys.modules, "valign.world.corpus", fake)
    assert load_corpus("world", seed=3).name == "world-3"
