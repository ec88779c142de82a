"""Training continues exactly where it stopped, and what it writes is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from valign.translate import Translator, train
from valign.translate.model import EnglishTranslator, Readings
from valign.translate.notation import Labelled

WORDS = "more less power kind rule fun fix it make not and the a bit".split()
ROWS = [
    Labelled(text, shift, source)
    for text, shift, source in [
        ("more power", (("power", 1.0),), "asks"),
        ("less power", (("power", -0.5),), "asks"),
        ("make it kind", (("benevolence", 1.0),), "asks"),
        ("less rule", (("conformity", -0.5),), "asks"),
        ("the fun", (("hedonism", 1.0),), "readers"),
        ("fix it", (), "nothing"),
        ("make it a bit", (), "nothing"),
    ]
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer BERT with a small vocabulary, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("encoder")
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*specials, *WORDS]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(WORDS) + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(shape).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def recipe(encoder: str, monkeypatch: pytest.MonkeyPatch) -> train.Recipe:
    monkeypatch.setattr(train, "written_rows", lambda: (ROWS * 3, ROWS))
    monkeypatch.setattr(train, "_CHECKPOINT_EVERY", 1)
    return train.Recipe(
        "tiny", 3, epochs=2, composed=10, frozen_layers=1, max_tokens=16, batch=8, backbone=encoder
    )


class Killed(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_weights(
    recipe: train.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train.train(recipe, tmp_path / "whole")
    real, calls = train._loss, []

    def killed_at_the_fifth(*args):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return real(*args)

    monkeypatch.setattr(train, "_loss", killed_at_the_fifth)
    with pytest.raises(Killed):
        train.train(recipe, tmp_path / "part")
    monkeypatch.setattr(train, "_loss", real)
    continued = train.train(recipe, tmp_path / "part")
    for name, tensor in whole.head.state_dict().items():
        assert torch.equal(tensor, continued.head.state_dict()[name]), name
    assert whole.decision == continued.decision
    assert whole.fingerprint == continued.fingerprint


def test_what_was_trained_can_be_saved_loaded_and_used(
    recipe: train.Recipe, tmp_path: Path
) -> None:
    made = train.train(recipe, tmp_path / "work")
    made.save(tmp_path / "out")
    loaded = EnglishTranslator.load(tmp_path / "out")
    texts = ["more power", "", "fix it", "not a bit kind"]
    np.testing.assert_allclose(loaded.read(texts).signs, made.read(texts).signs, atol=0.02)
    assert loaded.decision == made.decision
    assert [found.source for found in Translator.load(tmp_path / "out").translate_all(texts)] == [
        "tiny"
    ] * 4


def test_another_seed_gives_another_translator(recipe: train.Recipe, tmp_path: Path) -> None:
    from dataclasses import replace

    one, other = (train.train(replace(recipe, seed=s), tmp_path / str(s)) for s in (1, 2))
    assert one.fingerprint != other.fingerprint


def test_the_decision_follows_the_readings() -> None:
    signs = np.zeros((4, 10, 3))
    signs[..., 1] = 1.0
    signs[0, 4] = signs[3, 4] = (0.8, 0.1, 0.1)  # power down
    signs[1, 8] = (0.1, 0.55, 0.35)  # benevolence perhaps up
    sizes = np.full((4, 10, 2), 0.2)
    sizes[0, 4, 0] = 0.9
    nothing = np.array([0.1, 0.1, 0.9, 0.99])
    readings = Readings(signs, sizes, nothing)
    shifts = readings.shifts(train.Decision(gate=0.5, change=0.5))
    assert shifts[0, 4] == -1.0 and np.count_nonzero(shifts[0]) == 1
    assert shifts[1, 8] == 0.5 and np.count_nonzero(shifts[1]) == 1  # asked: the likeliest one
    assert not shifts[2:].any()  # the gate is shut
    wanted = np.zeros((4, 10))
    wanted[0, 4], wanted[1, 8] = -1.0, 0.5
    decided = train.decide(readings, wanted)
    np.testing.assert_array_equal(readings.shifts(decided), wanted)
    assert decided.certainty[0] > -1e-6 or decided.certainty[1] > 0
