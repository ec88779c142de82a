import pytest

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.methods import (
    FitError,
    Method,
    MethodSettingError,
    UnknownMethodError,
    available_methods,
    get_method,
    method_class,
    registry,
)
from valign.values import Profile, load_system

TARGET = Profile.of(SYSTEM, benevolence=1)


def test_every_listed_method_is_there_under_its_own_name():
    for name in available_methods():
        found = method_class(name)
        assert issubclass(found, Method)
        assert found.name == name
        assert found().settings == get_method(name).settings


def test_every_setting_says_what_it_does():
    for name in available_methods():
        for setting, field in method_class(name).model_fields.items():
            assert field.description, f"{name}.{setting}"


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UnknownMethodError, match="mean neva"):
        get_method("nevva")
    with pytest.raises(UnknownMethodError, match="logit-bias"):
        get_method("quux")


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(MethodSettingError, match="mean share"):
        get_method("neva", shaer=0.1)
    with pytest.raises(MethodSettingError, match="none"):
        get_method("none", share=0.1)


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("neva", "share", 0),
        ("neva", "share", 1.5),
        ("neva", "score", "luck"),
        ("neva", "p0", 1.0),
        ("conva", "p0", 0.4),
        ("conva", "drop_last", -1),
        ("conva", "gate", "perhaps"),
        ("logit-bias", "smoothing", 0),
        ("prompt", "wording", "shouting"),
        ("random", "reference", "random"),
        ("caa", "layers", "outer"),
        ("cast", "condition", "luck"),
        ("iti", "share", 0),
        ("valuelocate", "share", 0.6),
        ("valuelocate", "neurons", "all"),
        ("angular", "plane", "flat"),
        ("angular", "angle", 400),
        ("pplm", "steps", 0),
        ("sae", "features", 0),
        ("sae", "least_r2", 1),
        ("k-steering", "decay", 0),
        ("re-control", "steps", 0),
        ("bipo", "beta", 0),
        ("reft", "rank", 0),
        ("reft", "loss", "luck"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(method, setting, value):
    with pytest.raises(MethodSettingError, match=setting):
        get_method(method, **{setting: value})


def test_settings_are_read_from_strings():
    neva = method_class("neva").from_strings(["share=0.01", "gate=false", "mode=push"])
    assert (neva.share, neva.gate, neva.mode) == (0.01, False, "push")
    assert get_method("caa", layers="1,2").layers == (1, 2)
    assert get_method("caa", layers="1").layers == (1,)
    with pytest.raises(MethodSettingError, match="key=value"):
        method_class("neva").from_strings(["share"])


def test_settings_cannot_be_changed_later():
    with pytest.raises(Exception, match="frozen"):
        get_method("neva").share = 0.5


def test_another_package_cannot_take_the_name_of_one_of_ours(monkeypatch):
    class Point:
        name = "caa"

        @staticmethod
        def load():
            raise AssertionError("never loaded")

    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [Point])
    assert available_methods().count("caa") == 1
    assert method_class("caa").__module__ == "valign.methods.caa"


@pytest.mark.parametrize(
    "method", sorted(set(registry.BUILTIN) - {"none", "prompt", "role", "visa"})
)
def test_too_few_pairs_are_refused_saying_what_to_add(method):
    lm = tiny_lm()
    with pytest.raises(FitError, match="value=benevolence"):
        get_method(method).fit(lm, toy_corpus(pairs=3), TARGET)


@pytest.mark.parametrize("method", ["conva", "neva"])
def test_a_gate_without_prompts_is_refused_naming_the_way_out(method):
    lm = tiny_lm()
    with pytest.raises(FitError, match="gate=false"):
        get_method(method).fit(lm, toy_corpus(neutral=2), TARGET)
    assert get_method(method, gate=False).fit(lm, toy_corpus(neutral=2), TARGET).gate is None


def test_an_empty_or_foreign_target_is_refused():
    corpus = toy_corpus()
    with pytest.raises(FitError, match="no value"):
        get_method("caa").fit(tiny_lm(), corpus, Profile.of(SYSTEM))
    other = load_system("hh")
    with pytest.raises(FitError, match="hh"):
        get_method("caa").fit(tiny_lm(), corpus, Profile.from_mapping(other, {other.names[0]: 1}))
