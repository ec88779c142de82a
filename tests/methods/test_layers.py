import pytest

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.methods import MethodSettingError, get_method
from valign.values import Profile

TARGET = Profile.of(SYSTEM, benevolence=1)


@pytest.mark.parametrize(
    ("layers", "expected"), [("inner", [1]), ("middle", [1]), ("0", [0]), ("0,2", [0, 2])]
)
def test_rules_and_numbers_name_the_layers(layers, expected):
    control = get_method("caa", layers=layers).fit(tiny_lm(), toy_corpus(), TARGET)
    assert [edit.site.layer for edit in control.edits] == expected


def test_best_is_one_layer():
    control = get_method("caa", layers="best").fit(tiny_lm(), toy_corpus(), TARGET)
    assert len(control.edits) == 1


@pytest.mark.parametrize("method", ["caa", "cast", "k-steering", "bipo", "reft"])
def test_a_layer_the_model_lacks_is_refused_by_the_methods_name(method):
    with pytest.raises(MethodSettingError, match=r"layers=3: the model has layers 0 to 2"):
        get_method(method, layers=3).fit(tiny_lm(), toy_corpus(), TARGET)
