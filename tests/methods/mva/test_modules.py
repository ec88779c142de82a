"""Names of layers: what each means, and refusals before any work."""

import pytest

from tests.lm.tiny import tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.methods import MethodSettingError, get_method
from valign.methods.mva.modules import check_modules
from valign.values import Profile

TARGET = Profile.of(SYSTEM, power=1)


@pytest.mark.parametrize(("family", "modules"), [
    ("llama", ("q_proj", "self_attn.v_proj", "model.layers.0.mlp.up_proj")),
    ("gpt2", ("c_attn", "c_proj")), ("llama", "all-linear"),
])  # fmt: skip
def test_linear_layers_are_taken_by_their_whole_names_or_ends(family, modules):
    check_modules(tiny_lm(family), modules)


@pytest.mark.parametrize(("modules", "said"), [
    (("q_proj", "c_attn"), "'c_attn', which tiny-llama does not have"),
    (("proj",), "'proj', which"),
    (("embed_tokens",), "'embed_tokens' .Embedding., on which no"),
    (("q_proj", "self_attn"), "'self_attn' .LlamaAttention."),
    (("lm_head",), "'lm_head' .Linear., on which no"),
    ((), "no module"),
])  # fmt: skip
def test_other_names_are_refused_with_those_that_there_are(modules, said):
    with pytest.raises(MethodSettingError, match=said) as refused:
        check_modules(tiny_lm(), modules)
    there = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    assert there in str(refused.value) and "modules=all-linear" in str(refused.value)


@pytest.mark.parametrize("method", ["dpo", "mva", "sft", "simpo"])
def test_a_wrong_name_is_refused_before_the_model_runs(method, monkeypatch):
    pytest.importorskip("trl")
    lm = tiny_lm()

    def run(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(lm.model, "forward", run)
    for modules in ("nope", "embed_tokens", "q_proj,nope"):
        with pytest.raises(MethodSettingError, match=modules.rpartition(",")[2]):
            get_method(method, modules=modules).fit(lm, toy_corpus(), TARGET)


def test_one_name_alone_gets_adapters_wherever_it_is():
    pytest.importorskip("trl")
    lm = tiny_lm()
    method = get_method("sft", modules="q_proj", rank=2, steps=1, batch_size=2)
    control = method.fit(lm, toy_corpus(), TARGET)
    assert control.modules == tuple(f"model.layers.{i}.self_attn.q_proj" for i in range(3))
