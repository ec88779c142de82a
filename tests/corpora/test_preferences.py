"""Preference data in its authors' fields, and VC-Soup's filter."""

import gzip
import json

import numpy as np
import pytest

from valign.corpora import CorpusError
from valign.corpora.preferences import (
    consistency,
    consistent,
    hh_rlhf_pairs,
    read_preferences,
)


def written(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


HH = [
    dict(chosen="\n\nHuman: a?\n\nAssistant: yes", rejected="\n\nHuman: a?\n\nAssistant: no"),
    dict(chosen="\n\nHuman: b?\n\nAssistant: c\n\nHuman: d?\n\nAssistant: e",
         rejected="\n\nHuman: b?\n\nAssistant: c\n\nHuman: d?\n\nAssistant: f"),
    dict(chosen="\n\nHuman: g?\n\nAssistant: x", rejected="\n\nHuman: h?\n\nAssistant: y"),
]  # fmt: skip


def test_hh_rlhf_splits_the_dialogues_at_their_last_answer(tmp_path):
    found = hh_rlhf_pairs(written(tmp_path / "a.jsonl.gz", HH), "helpful")
    assert [(p.prompt, p.positive, p.negative) for p in found] == [
        ("a?", "yes", "no"),
        ("b?\n\nAssistant: c\n\nHuman: d?", "e", "f"),
    ]
    corpus = read_preferences(
        "hh-rlhf", f"helpful={tmp_path / 'a.jsonl.gz'},harmless={tmp_path / 'a.jsonl.gz'}", limit=1
    )
    assert corpus.system.name == "hh" and len(corpus.pairs_of("harmless")) == 1
    assert [d.text for d in corpus.dilemmas] == ["a?"]


def test_pku_saferlhf_gives_two_preferences_a_row(tmp_path):
    row = dict(prompt="p", response_0="r0", response_1="r1", is_response_0_safe=False,
               is_response_1_safe=True, better_response_id=0, safer_response_id=1)  # fmt: skip
    corpus = read_preferences("pku-saferlhf", written(tmp_path / "p.jsonl", [row]))
    (helpful,), (harmless,) = corpus.pairs_of("helpful"), corpus.pairs_of("harmless")
    assert (helpful.positive, harmless.positive) == ("r0", "r1")


def test_fulcra_pairs_answers_to_one_prompt(tmp_path):
    rows = [
        dict(dialogue="Human: q?\nBob: kind", value_types=["benevolence: +1"]),
        dict(dialogue="Human: q?\nBob: harsh", value_types=["benevolence: -1", "power: +1"]),
        dict(dialogue="Human: alone?\nBob: x", value_types=["power: +1"]),
    ]
    corpus = read_preferences("fulcra", written(tmp_path / "f.jsonl", rows))
    assert {(p.value, p.positive) for p in corpus.pairs} == {
        ("benevolence", "kind"), ("power", "harsh")
    }  # fmt: skip
    with pytest.raises(CorpusError, match="no preference"):
        read_preferences("fulcra", written(tmp_path / "g.jsonl", rows[2:]))


def test_wrong_fields_formats_and_places_are_named(tmp_path):
    path = written(tmp_path / "a.jsonl", HH)
    with pytest.raises(CorpusError, match="row 1 has no prompt"):
        read_preferences("pku-saferlhf", path)
    with pytest.raises(CorpusError, match="helpful=PATH"):
        read_preferences("hh-rlhf", path)
    with pytest.raises(CorpusError, match="there are: hh-rlhf"):
        read_preferences("ultra", path)
    with pytest.raises(CorpusError, match="No file"):
        read_preferences("fulcra", tmp_path / "none.jsonl")


def test_consistency_is_the_cosine_with_all_ones(tmp_path):
    chosen = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    found = consistency(chosen, np.zeros((4, 2)))
    assert found == pytest.approx([1, np.sqrt(0.5), 0, 0])
    pairs = hh_rlhf_pairs(written(tmp_path / "a.jsonl", HH), "helpful")
    assert consistent(pairs, chosen[1:3], np.zeros((2, 2)), least=0.5) == pairs[:1]


def test_the_published_sets_are_read(public_data):
    source = f"helpful={public_data / 'fulcra' / 'helpful_test.jsonl'}"
    assert len(read_preferences("hh-rlhf", source).pairs) > 2000
