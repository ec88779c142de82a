"""What the translator learns from stays apart from what it is tested on, and is what it says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from valign.corpora import load_shifts
from valign.translate import TranslatorError
from valign.translate.material import epoch_rows, held_out_shifts, written_rows
from valign.translate.notation import CODES, STEPS, read_labelled

OWN_TEST = Path(__file__).parents[2] / "benchmarks" / "data" / "translator_test.txt"


def runs(text: str, n: int = 6) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+", text.lower())
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def test_training_shares_no_request_and_no_six_words_with_the_tests() -> None:
    tests = [*held_out_shifts(), *read_labelled(OWN_TEST)]
    learned, validation = written_rows()
    seen = {row.text.lower().strip(" .!?") for row in [*learned, *validation]}
    shared = set().union(*(runs(row.text) for row in [*learned, *validation]))
    for row in tests:
        assert row.text.lower().strip(" .!?") not in seen, row.text
        assert not runs(row.text) & shared, row.text


def test_held_out_shifts_are_about_a_third_and_in_neither_training_nor_validation() -> None:
    held = {row.text for row in held_out_shifts()}
    learned, validation = written_rows()
    assert 0.2 < len(held) / len(load_shifts()) < 0.45
    assert not held & {row.text for row in [*learned, *validation]}
    assert not {r.text for r in learned} & {r.text for r in validation}


def test_an_epoch_is_the_same_for_the_same_seed_and_covers_every_value_both_ways() -> None:
    written, _ = written_rows()
    rows = epoch_rows(written[::10], seed=3, composed=600, repeats=1)
    assert rows == epoch_rows(written[::10], seed=3, composed=600, repeats=1)
    assert rows != epoch_rows(written[::10], seed=4, composed=600, repeats=1)
    signs = Counter((value, change > 0) for row in rows for value, change in row.shift)
    assert set(signs) == {(value, up) for value in CODES.values() for up in (True, False)}
    assert all(change in STEPS.values() for row in rows for _, change in row.shift)
    assert not any("{" in row.text for row in rows)
    assert all(len(row.changes) == len(row.shift) for row in rows)


def test_a_wrong_code_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("# remark\nBE++ | kinder\nXX+ | odder\n")
    with pytest.raises(TranslatorError, match=r"rows.txt, line 3: 'XX\+'"):
        list(read_labelled(path))


def test_every_written_request_is_read_and_stands_once() -> None:
    learned, validation = written_rows()
    texts = Counter(row.text.lower() for row in [*learned, *validation])
    assert not [text for text, count in texts.items() if count > 1]
    assert sum(texts.values()) > 1500
