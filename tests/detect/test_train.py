"""Training: who sees which row, the cache, and a run that continues exactly where it stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from valign.detect import load_detector, train
from valign.detect.activations import cached_activations
from valign.detect.backbone import Backbone
from valign.detect.encoder import EncoderDetector
from valign.detect.training_data import TEN, LabelledText, all_texts, part_of, valuetexts

WORDS = "free safe fun win rule obey help fair old new we you like the and not".split()
CATEGORIES = ("Achievement", "Hedonism")


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A random two-layer BERT with a sixteen-word vocabulary, as a Hugging Face folder."""
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


def tiny_rows():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(2, 9))))
        part = ("a", "b", "validation", "test")[i % 4]
        signs = dict.fromkeys(TEN, 0) | {"hedonism": int(rng.integers(-1, 2))}
        present = frozenset(c for c in CATEGORIES if rng.random() < 0.5)
        rows.append(LabelledText(f"v{i}", "valueeval23", part, text, signs=signs,
                                 categories=present, level1=frozenset()))  # fmt: skip
    for i in range(12):
        part = "ab"[i % 2]
        rows.append(LabelledText(f"p{i}", "pairs", part, f"the {WORDS[i]}", signs={"power": 1},
                                 rival=f"p{i}-n", value="power"))  # fmt: skip
        rows.append(LabelledText(f"p{i}-n", "pairs", part, f"not {WORDS[i]}", signs={"power": 0},
                                 value="power"))  # fmt: skip
    return rows


@pytest.fixture
def tiny_data(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "all_texts", lambda _folder: tiny_rows())
    names = {False: CATEGORIES, True: ("Be",)}
    monkeypatch.setattr(train, "category_names", lambda _folder, level1=False: names[level1])
    monkeypatch.setattr(train, "_CHECKPOINT_EVERY", 1)
    return tmp_path


def recipe(encoder):
    return train.Recipe("tiny", "a", 3, epochs=2, frozen_layers=1, batch=6, backbone=encoder)


class Killed(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_weights(tiny_data, tiny_encoder, monkeypatch):
    whole = train.train(recipe(tiny_encoder), tiny_data / "whole", data=tiny_data)

    real, calls = train._loss, []

    def killed_at_the_fifth(*args):
        calls.append(1)
        if len(calls) == 5:
            raise Killed
        return real(*args)

    monkeypatch.setattr(train, "_loss", killed_at_the_fifth)
    with pytest.raises(Killed):
        train.train(recipe(tiny_encoder), tiny_data / "part", data=tiny_data)
    monkeypatch.setattr(train, "_loss", real)
    continued = train.train(recipe(tiny_encoder), tiny_data / "part", data=tiny_data)

    for name, tensor in whole.head.state_dict().items():
        assert torch.equal(tensor, continued.head.state_dict()[name]), name


def test_another_recipe_of_the_same_name_starts_anew(tiny_data, tiny_encoder):
    other = replace(recipe(tiny_encoder), part="b")
    alone = train.train(other, tiny_data / "alone", data=tiny_data)
    train.train(recipe(tiny_encoder), tiny_data / "shared", data=tiny_data)
    after = train.train(other, tiny_data / "shared", data=tiny_data)
    for name, tensor in alone.head.state_dict().items():
        assert torch.equal(tensor, after.head.state_dict()[name]), name


def test_what_was_trained_can_be_saved_loaded_and_scored(tiny_data, tiny_encoder):
    detector = train.train(recipe(tiny_encoder), tiny_data / "work", data=tiny_data)
    detector.save(tiny_data / "out")
    loaded = load_detector(tiny_data / "out")
    assert isinstance(loaded, EncoderDetector)
    texts = ["we like fun", "", "obey the rule and help"]
    np.testing.assert_allclose(loaded.score(texts), detector.score(texts), atol=0.02)


def test_the_fingerprint_is_that_of_everything_that_decides_a_score(tiny_data, tiny_encoder):
    train.train(recipe(tiny_encoder), tiny_data / "work", data=tiny_data).save(tiny_data / "out")

    def loaded(**how):
        return EncoderDetector.load(tiny_data / "out", **how)

    def changed(detector, calibration=None, **settings):
        return EncoderDetector(detector.backbone, detector.head, detector.settings | settings,
                               calibration=calibration or detector.calibration)  # fmt: skip

    plain = loaded()
    heavier = loaded()
    heavier.head.sign_reader.weight += 1
    warmer = replace(plain.calibration, temperature=plain.calibration.temperature * 2)
    stricter = loaded()
    stricter.thresholds = stricter.thresholds + 0.1
    others = [
        plain, heavier, stricter, loaded(windows="mean"), changed(plain, calibration=warmer),
        changed(plain, max_tokens=7), changed(plain, frozen_layers=2),
    ]  # fmt: skip
    assert len({one.fingerprint for one in others}) == len(others)
    assert plain.fingerprint == loaded().fingerprint
    assert changed(plain, epochs=99).fingerprint == plain.fingerprint


def test_only_rows_of_the_part_are_trained_on_and_pairs_stay_together(tiny_encoder):
    rows = tiny_rows()
    lengths = np.full(len(rows), 5)
    batches = list(train._batches(rows, lengths, recipe(tiny_encoder), epoch=0))
    seen = sorted(i for batch in batches for i in batch)
    assert seen == [i for i, row in enumerate(rows) if row.part == "a"]
    place = {row.id: i for i, row in enumerate(rows)}
    for batch in batches:
        assert all(place[rows[i].rival] in batch for i in batch if rows[i].rival)


def test_values_a_short_text_is_not_labelled_for_count_a_little_as_absent():
    pair = LabelledText("p", "pairs", "a", "we like fun", signs={"hedonism": 1})
    told = LabelledText("v", "valueeval23", "a", "we like fun", signs={"hedonism": 1})
    labels = train.Labels.of([pair, told], CATEGORIES, ())
    named = TEN.index("hedonism")
    others = [k for k in range(len(TEN)) if k != named]
    assert labels.weight[0, named] > labels.weight[0, others[0]] > 0
    assert not labels.weight[1, others].any()
    assert labels.signs[0, others].isnan().all()


def test_cached_activations_are_those_of_the_encoder_and_are_read_back(tiny_encoder, tmp_path):
    backbone = Backbone(tiny_encoder)
    texts = ["we like fun", "obey", "help the old and the new"]
    cached = cached_activations(backbone, texts, tmp_path, layers=1, max_tokens=16)
    ids, mask = backbone.pad(backbone.tokenize(texts[:1], max_tokens=16))
    expected = backbone.lower(ids, mask, upto=1)[0].numpy()
    np.testing.assert_allclose(cached[0], expected, atol=2e-3)
    hidden, mask = cached.batch([1, 2])
    assert hidden.shape == (2, 8, 16)
    assert mask.sum(1).tolist() == [3, 8]

    backbone.lower = None  # a second call must not need the encoder
    again = cached_activations(backbone, texts, tmp_path, layers=1, max_tokens=16)
    assert np.array_equal(again[2], cached[2])


def test_a_row_goes_where_its_name_says_and_the_parts_have_the_stated_sizes():
    parts = [part_of(str(i)) for i in range(5000)]
    shares = {part: parts.count(part) / 5000 for part in ("test", "validation", "a", "b")}
    assert shares == pytest.approx({"test": 0.2, "validation": 0.1, "a": 0.35, "b": 0.35}, abs=0.02)
    assert parts == [part_of(str(i)) for i in range(5000)]


def test_both_sides_of_a_pair_are_in_the_same_part():
    rows = {row.id: row for row in valuetexts()}
    pairs = [row for row in rows.values() if row.rival]
    assert len(pairs) > 500
    assert all(rows[row.rival].part == row.part for row in pairs)


def test_public_rows_do_not_cross_parts(public_data):
    rows = all_texts(public_data)
    assert len({row.id for row in rows}) == len(rows)
    topics = {"a": set(), "b": set()}
    questions: dict[str, set[str]] = {}
    for row in rows:
        if row.source == "valueeval23" and row.part in topics:
            topics[row.part].add(row.prompt.partition(": ")[2])
        if row.source == "fulcra":
            questions.setdefault(row.prompt, set()).add(row.part)
    assert not topics["a"] & topics["b"]
    assert all(len(parts) == 1 for parts in questions.values())
