"""Controls beside other people's tools: pipelines, PEFT, quantised models."""

import pytest
import torch
from transformers import pipeline

from tests.deploy.cases import control, edit, gate
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.deploy import ExportError, export
from valign.lm import HostModel, generate


def test_a_control_runs_in_a_transformers_pipeline():
    lm = tiny_lm()
    steering = control(edit(lm, "push", "resid:1", scope="generation"), edit(lm, "add", "heads:0"))
    speak = pipeline("text-generation", model=lm.model, tokenizer=lm.tokenizer, device="cpu")
    options = dict(max_new_tokens=8, do_sample=False, return_full_text=False, batch_size=2)
    prompts = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]

    def answers():
        return [made[0]["generated_text"].split() for made in speak(prompts, **options)]

    plain = answers()
    with lm.controlled(steering):
        steered = answers()
    expected = generate(lm, PROMPTS, steering, max_new_tokens=8).texts
    assert steered == [text.split() for text in expected] != plain
    assert answers() == plain


@pytest.fixture
def adapted():
    peft = pytest.importorskip("peft")
    lm = tiny_lm()
    config = peft.LoraConfig(r=2, target_modules=["down_proj", "q_proj"], task_type="CAUSAL_LM",
                             init_lora_weights=False)  # fmt: skip
    return HostModel(peft.get_peft_model(lm.model, config), lm.tokenizer, name="adapted")


def test_a_base_with_an_adapter_is_steered_and_exported_once_merged(adapted, tmp_path):
    steering = control(edit(adapted, "scale", "neurons:1"), edit(adapted, "add", "resid:1"))
    wanted = generate(adapted, PROMPTS, steering, max_new_tokens=6).token_ids
    assert wanted != generate(adapted, PROMPTS, max_new_tokens=6).token_ids
    for to in ("folded", "peft"):
        with pytest.raises(ExportError, match=r"wears a PEFT adapter.*merge_and_unload"):
            export(adapted, steering, to=to, out=tmp_path / to, prompts=PROMPTS)
    export(adapted, steering, to="vllm", out=tmp_path / "vllm", prompts=PROMPTS)
    vector = control(edit(adapted, "add", "resid:1"))
    export(adapted, vector, to="gguf", out=tmp_path / "gguf", prompts=PROMPTS)
    merged = HostModel(adapted.model.merge_and_unload(), adapted.tokenizer)
    export(merged, steering, to="folded", out=tmp_path / "folded", prompts=PROMPTS)
    assert generate(merged, PROMPTS, steering, max_new_tokens=6).token_ids == wanted


@pytest.fixture
def quantised():
    """Linear maps in int8, activations quantised on the fly: torch's own, for CPUs."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no int8 kernels for this processor")
    lm = tiny_lm()
    made = torch.ao.quantization.quantize_dynamic(lm.model, {torch.nn.Linear}, dtype=torch.qint8)
    return HostModel(made, lm.tokenizer, name="int8")


@pytest.mark.parametrize("kind", ["add", "push", "scale", "project"])
def test_an_int8_base_is_steered_at_every_site(quantised, kind):
    lm = quantised
    steering = control(
        edit(lm, kind, "resid:1", scope="generation"), edit(lm, kind, "neurons:0"),
        edit(lm, kind, "heads:2"), gate=gate(lm, opens=True),
    )  # fmt: skip
    for prompt in PROMPTS:  # its activations' scale is shared by a batch, so rows go alone
        said = generate(lm, [prompt], steering, max_new_tokens=5)
        assert said.receipts[0].sites == ("heads:2", "neurons:0", "resid:1")
        assert said.receipts[0].size > 0 and said.receipts[0].gate
        ids = torch.tensor([lm.encode_prompt(prompt)])
        with torch.no_grad():
            plain = lm.model(ids, use_cache=False).logits
            with lm.controlled(steering):
                assert not torch.equal(lm.model(ids, use_cache=False).logits, plain)
            assert torch.equal(lm.model(ids, use_cache=False).logits, plain)


def test_weights_of_an_int8_base_are_not_folded(quantised, tmp_path):
    steering = control(edit(quantised, "scale", "neurons:1"))
    for to in ("folded", "peft"):
        with pytest.raises(ExportError, match=r"quantised.*unquantised"):
            export(quantised, steering, to=to, out=tmp_path / to, prompts=PROMPTS)
    vector = control(edit(quantised, "add", "resid:1"))
    export(quantised, vector, to="gguf", out=tmp_path / "gguf", prompts=PROMPTS)
    export(quantised, steering, to="vllm", out=tmp_path / "vllm", prompts=PROMPTS)
