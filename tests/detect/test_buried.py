"""Texts among plain sentences: what is known of them must not change, nor cross the split."""

from __future__ import annotations

import pytest

from valign.detect import train
from valign.detect.buried import buried_texts
from valign.detect.entail import sentences
from valign.detect.training_data import LabelledText, valuetexts

PLAIN = [
    LabelledText(f"plain-{part}-{k}", "plain", part, f"The {part} shelf has row {k} of boxes.")
    for part in ("a", "b", "test") for k in range(12)
]  # fmt: skip


def pair(part: str) -> list[LabelledText]:
    up = LabelledText("p-1", "pairs", part, "Go and win.", signs={"achievement": 1},
                      rival="p-1-negative", value="achievement")  # fmt: skip
    down = LabelledText("p-1-negative", "pairs", part, "Go and see.", signs={"achievement": 0},
                        value="achievement")  # fmt: skip
    return [up, down]


@pytest.mark.parametrize("part", ["a", "b", "test"])
def test_labels_stay_and_the_plain_sentences_come_from_the_same_part(part: str) -> None:
    up, down = buried_texts([*PLAIN, *pair(part)])
    assert (up.part, up.signs, up.value) == (part, {"achievement": 1}, "achievement")
    assert up.rival == down.id
    around = up.text.replace("Go and win.", "")
    assert around.count(f"The {part} shelf") == around.count(" shelf ") >= 2


def test_the_sides_of_a_pair_differ_in_their_own_words_only() -> None:
    up, down = buried_texts([*PLAIN, *pair("a")])
    assert up.text.replace("Go and win.", "Go and see.") == down.text


def test_a_text_with_no_room_or_no_plain_sentences_is_left_out() -> None:
    long = LabelledText("l", "pairs", "a", "word " * 70, signs={"power": 1}, value="power")
    assert not list(buried_texts([*PLAIN, long]))
    assert not list(buried_texts(pair("a")))


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_share_of_the_rows_keeps_both_sides_of_a_pair(share: float) -> None:
    rows = list(valuetexts())
    rows = train._kept([*rows, *buried_texts(rows)], share)
    ids = {row.id for row in rows}
    assert all(row.rival in ids for row in rows if row.rival)
    assert all(
        f"buried-{row.rival}" in ids for row in rows if row.rival and f"buried-{row.id}" in ids
    )


def test_the_projects_own_texts_are_buried_the_same_way_each_time() -> None:
    rows = list(valuetexts())
    once, again = list(buried_texts(rows)), list(buried_texts(rows))
    assert [r.text for r in once] == [r.text for r in again]
    assert len(once) > 1000
    whole = {r.id: r for r in rows}
    for row in once:
        origin = whole[row.id.removeprefix("buried-")]
        assert origin.text in row.text
        assert origin.signs == row.signs
        assert len(sentences(row.text)) > len(sentences(origin.text))
