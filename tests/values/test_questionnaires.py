"""Questionnaires: the bundled portraits, the user's own, published ones from a file."""

import json
import re

import numpy as np
import pytest

from valign.values import ValignError, load_system
from valign.values.questionnaires import (
    QuestionnaireError,
    available_questionnaires,
    load_questionnaire,
)


def fives(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


@pytest.mark.parametrize(
    ("name", "system"), [("portraits10", "schwartz10"), ("portraits19", "schwartz19")]
)
def test_bundled_portraits_have_three_items_a_value(name, system):
    form = load_questionnaire(name)
    assert form.values == load_system(system).names
    assert (form.key().sum(axis=0) == 3).all() and (form.key().sum(axis=1) == 1).all()
    assert len({item.id for item in form.items}) == len(form) == 3 * len(form.values)
    assert form.points == (1, 2, 3, 4, 5, 6) and len(form.options) == 6
    assert all(question.count(item.text) == 1
               for question, item in zip(form.questions(), form.items, strict=True))  # fmt: skip
    assert form.licence == "Apache-2.0" and "Written for this project" in form.source


def test_bundled_items_do_not_name_their_value():
    for name in ("portraits10", "portraits19"):
        for item in load_questionnaire(name).items:
            root = item.value.split("-")[0][:7]
            assert not re.search(rf"\b{root}", item.text.lower()), item


def test_no_bundled_item_stands_twice():
    texts = [i.text for name in ("portraits10", "portraits19")
             for i in load_questionnaire(name).items]  # fmt: skip
    assert len(set(texts)) == 87


def test_bundled_items_are_not_the_published_ones(public_data):
    theirs = [
        load_questionnaire("pvq21", items=public_data / "valueconsistency/pvq_english.jsonl"),
        load_questionnaire(
            "valuebench/PVQ40", items=public_data / "valuebench/value_orientation.csv"
        ),
    ]
    runs = {run for form in theirs for item in form.items for run in fives(item.text)}
    for name in ("portraits10", "portraits19"):
        for item in load_questionnaire(name).items:
            assert not fives(item.text) & runs, item.text


def test_published_items_are_read_from_the_public_files(public_data):
    pvq = load_questionnaire("pvq21", items=public_data / "valueconsistency/pvq_english.jsonl")
    assert len(pvq) == 21 and pvq.values == load_system("schwartz10").names
    assert pvq.items[0].value == "self-direction" and "creative" in pvq.items[0].text
    path = public_data / "valuebench/value_orientation.csv"
    all_items = load_questionnaire("valuebench", items=path)
    assert len(all_items) == 1988 and {i.sign for i in all_items.items} == {-1, 1}
    assert all_items.items[0].text.endswith("?") and all_items.points == (-1, 0, 1)
    forty = load_questionnaire("valuebench/PVQ40", items=path)
    assert len(forty) == 40 and forty.key().sum(axis=0).max() == 6
    with pytest.raises(QuestionnaireError, match=r"has no 'PVQ'.*PVQ40"):
        load_questionnaire("valuebench/PVQ", items=path)


def test_the_published_key_scores_forty_plain_lines(tmp_path):
    path = tmp_path / "forty.txt"
    path.write_text("\n".join(f"item {n}" for n in range(1, 41)))
    form = load_questionnaire("pvq40", items=path)
    of = dict(zip(form.values, form.key().sum(axis=0).astype(int), strict=True))
    assert of == {
        "self-direction": 4, "stimulation": 3, "hedonism": 3, "achievement": 4, "power": 3,
        "security": 5, "conformity": 4, "tradition": 4, "benevolence": 4, "universalism": 6,
    }  # fmt: skip
    assert [i.value for i in form.items[:3]] == ["self-direction", "power", "universalism"]
    assert form.items[39].value == "universalism"


def test_numbers_in_the_file_win_over_its_order(tmp_path):
    path = tmp_path / "forty.jsonl"
    rows = [{"number": n, "text": f"item {n}"} for n in range(40, 0, -1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    form = load_questionnaire("pvq40", items=path)
    assert form.items[0].text == "item 40" and form.items[0].value == "universalism"


def test_values_are_spelled_as_the_system_spells_them(tmp_path):
    path = tmp_path / "rr.csv"
    names = [v.title for v in load_system("schwartz19")]
    assert "Self-direction: thought" in names
    rows = [f'"text {n}-{k}","{title}"' for k in range(3) for n, title in enumerate(names)]
    path.write_text("text,value\n" + "\n".join(rows) + "\n")
    form = load_questionnaire("pvq-rr", items=path)
    assert (form.key().sum(axis=0) == 3).all()


def test_svs_keeps_items_that_belong_to_no_index(tmp_path):
    names = load_system("schwartz10").names
    path = tmp_path / "svs.csv"
    path.write_text("text,value\n" + "".join(f"word {n},{n}\n" for n in names) + "inner calm,\n")
    form = load_questionnaire("svs", items=path)
    assert len(form) == 11 and form.items[-1].value is None
    assert form.points[0] == -1 and form.points[-1] == 7 and not form.key()[-1].any()


OWN = """
name: mine
title: Mine
source: me
licence: none
question: "Do you agree? {item}"
scale:
  - {says: disagree, points: 0}
  - {says: agree, points: 1}
items:
  calm: [I keep calm]
  zest: [I like noise]
reversed_items:
  calm: [I shout]
"""


def test_own_files_may_hold_reversed_items_and_values_of_their_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    form = load_questionnaire(path)
    assert form.values == ("calm", "zest") and form.system is None
    assert np.array_equal(form.key(), [[1, 0], [0, 1], [-1, 0]])
    assert form.questions()[2] == "Do you agree? I shout"


@pytest.mark.parametrize(
    ("change", "says"),
    [(("points: 1", "points: 0"), "must rise"), (("{item}", "it"), "question"),
     (("I shout", "I keep calm"), "stands twice"), (("licence: none", "size: 3"), "licence"),
     (("title: Mine", "title: Mine\nsystem: schwartz10"), "names calm, zest"),
     (("items:", "items: ["), "not YAML")],
)  # fmt: skip
def test_a_misshapen_file_is_refused_with_the_reason(tmp_path, change, says):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(*change))
    with pytest.raises(QuestionnaireError, match=says):
        load_questionnaire(path)


def test_what_cannot_be_read_is_refused_with_what_to_type(tmp_path):
    assert available_questionnaires()["portraits10"] and not available_questionnaires()["svs"]
    with pytest.raises(QuestionnaireError, match="Did you mean portraits10"):
        load_questionnaire("portrait10")
    with pytest.raises(QuestionnaireError, match="--items FILE"):
        load_questionnaire("pvq40")
    with pytest.raises(QuestionnaireError, match="brings its own items"):
        load_questionnaire("portraits10", items="x.csv")
    with pytest.raises(QuestionnaireError, match="No such file"):
        load_questionnaire("pvq40", items=tmp_path / "none.csv")
    with pytest.raises(QuestionnaireError, match="No such file"):
        load_questionnaire(tmp_path / "none.yaml")
    short = tmp_path / "short.txt"
    short.write_text("one\n")
    with pytest.raises(QuestionnaireError, match="holds 1 items; pvq40"):
        load_questionnaire("pvq40", items=short)
    with pytest.raises(QuestionnaireError, match="row 1: which value"):
        load_questionnaire("pvq-rr", items=short)
    with pytest.raises(QuestionnaireError, match=r"ends in \.csv"):
        load_questionnaire("pvq40", items=tmp_path / "x.xlsx")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "x"}\n{\n')
    with pytest.raises(QuestionnaireError, match="row 2 is not JSON"):
        load_questionnaire("pvq40", items=bad)
    bad.write_text('{"text": "x", "number": "four"}\n')
    with pytest.raises(QuestionnaireError, match="no item number"):
        load_questionnaire("pvq40", items=bad)
    bad.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(QuestionnaireError, match="not UTF-8"):
        load_questionnaire("pvq40", items=bad)
    assert issubclass(QuestionnaireError, ValignError)
