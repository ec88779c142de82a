"""Triplets: the bundled ones, files of one's own, and what is refused."""

import json

import pytest

from valign.corpora.errors import CorpusError
from valign.corpora.triplets import load_triplets
from valign.values import UnknownValueError, load_system

SYSTEM = load_system("schwartz10")


def test_the_bundled_triplets_name_values_and_hold_faulty_rewrites():
    found = load_triplets(SYSTEM)
    assert len(found) == 50
    for one in found:
        assert one.changes and set(one.changes) <= set(SYSTEM.names)
        assert one.source != one.rewrite and one.target is None
        assert one.rewrite not in one.worse
    assert sum(bool(one.worse) for one in found) > 40


def test_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.jsonl"
    row = {"source": "a", "target": {"power": -1}, "rewrite": "b"}
    file.write_text(json.dumps(row) + "\n\n")
    (one,) = load_triplets(SYSTEM, file)
    assert (one.id, one.changes, one.worse, one.prompt) == ("1", {"power": -1.0}, (), None)
    for broken, word in (
        ({**row, "target": {"power": 3}}, "line 1"),
        ({"source": "a"}, "line 1"),
        ("text", "line 1"),
    ):
        file.write_text(json.dumps(broken))
        with pytest.raises(CorpusError, match=word):
            load_triplets(SYSTEM, file)
    file.write_text(json.dumps({**row, "target": {"pwoer": 1}}))
    with pytest.raises(UnknownValueError):
        load_triplets(SYSTEM, file)
    with pytest.raises(CorpusError, match="No such file"):
        load_triplets(SYSTEM, tmp_path / "none")
