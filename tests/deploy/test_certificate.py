"""Certificates: they hold only for files that do the same, and a failure leaves nothing behind."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.deploy.cases import control, edit, gate, model
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import EditsControl
from valign.deploy import Certificate, CertificateError, ExportError, export
from valign.deploy.certificate import sha256
from valign.deploy.exporting import FORMATS
from valign.lm import UnsupportedSiteError, generate


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def steering(lm):
    return control(edit(lm, "add", "resid:1"), edit(lm, "scale", "neurons:0"))


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_certificate_names_what_was_compared(lm, steering, tmp_path):
    made = export(lm, steering, to="folded", out=tmp_path / "out", prompts=PROMPTS)
    row = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert row["holds"] and row["format"] == "valign-certificate/1"
    assert row["max_logit_difference"] <= 1e-4 < row["effect"] and row["token_agreement"] == 1
    assert row["model"]["fingerprint"] == lm.fingerprint
    assert row["control"]["control"]["sha256"] == sha256(steering.save(tmp_path / "c"))
    assert set(row["files"]) == {*left(tmp_path / "out")} - {"certificate.json"}
    assert {"torch", "transformers", "valign", "python"} <= set(row["versions"])
    assert row["prompts"] == len(PROMPTS) and row["widened"] is None
    assert Certificate.read(tmp_path / "out") == made


def test_files_that_changed_afterwards_void_it(lm, steering, tmp_path):
    export(lm, steering, to="folded", out=tmp_path / "out", prompts=PROMPTS)
    path = tmp_path / "out" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CertificateError, match=r"model\.safetensors.*not the file"):
        Certificate.read(tmp_path / "out")
    path.unlink()
    with pytest.raises(CertificateError, match="missing"):
        Certificate.read(tmp_path / "out")
    with pytest.raises(CertificateError, match="No certificate"):
        Certificate.read(tmp_path)


def test_a_certificate_cannot_point_out_of_its_folder(lm, steering, tmp_path):
    export(lm, steering, to="folded", out=tmp_path / "out", prompts=PROMPTS)
    path = tmp_path / "out" / "certificate.json"
    row = json.loads(path.read_text())
    for outside in ("../secret", str(tmp_path / "secret")):
        (tmp_path / "secret").write_text("x")
        row["files"] = {outside: sha256(tmp_path / "secret")}
        path.write_text(json.dumps(row))
        with pytest.raises(CertificateError, match="outside its folder"):
            Certificate.read(tmp_path / "out")


@pytest.mark.parametrize("to", ["folded", "peft", "gguf"])
@pytest.mark.parametrize("fault", ["stronger", "nothing", "crash"])
def test_an_export_that_does_something_else_is_not_written(lm, tmp_path, monkeypatch, to, fault):
    steering = control(edit(lm, "add", "resid:1"))
    good = FORMATS[to]

    def wrong(lm, control, folder):
        if fault == "crash":
            (folder / "half").write_text("half")
            raise RuntimeError("disk on fire")
        good.write(lm, control.scaled(1.001 if fault == "stronger" else 0.0), folder)

    monkeypatch.setitem(FORMATS, to, replace(good, write=wrong))
    error = RuntimeError if fault == "crash" else CertificateError
    with pytest.raises(error, match="on fire" if fault == "crash" else "Nothing was written"):
        export(lm, steering, to=to, out=tmp_path / "out", prompts=PROMPTS)
    assert left(tmp_path) == []


def test_agreement_about_nothing_is_no_proof(lm, tmp_path):
    idle = control(edit(lm, "add", "resid:1")).scaled(0.0)
    shut = control(edit(lm, "add", "resid:1"), gate=gate(lm, opens=False))
    for to, chosen in (("folded", idle), ("peft", idle), ("vllm", idle), ("vllm", shut)):
        with pytest.raises(CertificateError, match="would prove nothing"):
            export(lm, chosen, to=to, out=tmp_path / "out", prompts=PROMPTS)
    assert left(tmp_path) == []


def test_each_profile_of_a_bundle_must_act(lm, steering, tmp_path):
    with pytest.raises(CertificateError, match="would prove nothing"):
        export(
            lm, {"a": steering, "b": steering.scaled(0)}, to="vllm", out=tmp_path / "out",
            prompts=PROMPTS,
        )  # fmt: skip


def test_exports_are_compared_in_float32(tmp_path, steering):
    half = tiny_lm(dtype=torch.bfloat16)
    with pytest.raises(ExportError, match=r"bfloat16.*dtype='float32'"):
        export(half, steering, to="folded", out=tmp_path / "out", prompts=PROMPTS)
    assert left(tmp_path) == []


def test_a_folder_in_use_is_left_alone(lm, steering, tmp_path):
    used, file = tmp_path / "used", tmp_path / "file"
    used.mkdir()
    (used / "mine").write_text("mine")
    file.write_text("mine")
    for out in (used, file):
        with pytest.raises(ExportError, match="not an empty folder"):
            export(lm, steering, to="peft", out=out, prompts=PROMPTS)
    assert left(used) == ["mine"] and file.read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(lm, steering, to="peft", out=tmp_path / "empty", prompts=PROMPTS)
    with pytest.raises(ExportError, match="Cannot write"):
        export(lm, steering, to="peft", out=file / "below", prompts=PROMPTS)


def test_what_cannot_be_asked_is_said(lm, steering, tmp_path):
    def refused(match, to="folded", given=steering, prompts=PROMPTS, error=ExportError):
        with pytest.raises(error, match=match):
            export(lm, given, to=to, out=tmp_path / "out", prompts=prompts)

    refused("Did you mean folded", to="foldd")
    refused("Formats: folded, peft, gguf, prompt, vllm", to="onnx")
    refused("exactly one control, 2 were given", given={"a": steering, "b": steering})
    refused("exactly one control, 0 were given", to="vllm", given={})
    refused("at least one held-out prompt", prompts=[])
    refused("no edits", given=EditsControl(target=steering.target), error=UnsupportedSiteError)
    wide = control(edit(tiny_lm(hidden_size=64), "add", "resid:1"))
    for to in ("folded", "peft", "gguf", "vllm"):
        refused("64 wide, the model has 32", to=to, given=wide, error=UnsupportedSiteError)
    assert left(tmp_path) == []


@pytest.mark.parametrize("to", ["folded", "peft", "gguf"])
def test_a_widened_control_is_certified_as_such(lm, tmp_path, to):
    late = control(edit(lm, "add", "resid:1", scope="generation"))
    made = export(lm, late, to=to, out=tmp_path / "out", prompts=PROMPTS, everywhere=True)
    assert made.widened > 1e-2
    assert Certificate.read(tmp_path / "out").widened == made.widened


@pytest.mark.parametrize(
    ("family", "kind", "site", "wanted"),
    [
        ("llama", "add", "resid:1", "LlamaForCausalLM"),
        ("qwen2", "add", "resid:1", "LlamaForCausalLM"),
        ("mistral", "add", "resid:1", "LlamaForCausalLM"),
        ("gemma", "add", "resid:1", "LlamaForCausalLM"),
        ("gpt2", "add", "resid:1", "GPT2LMHeadModel"),
        ("gemma2", "add", "heads:1", "Gemma2ForCausalLM"),
        ("qwen2", "scale", "neurons:1", "Qwen2ForCausalLM"),
        ("qwen2", "add", "heads:1", "LlamaForCausalLM"),
    ],
)
def test_a_folded_checkpoint_is_a_stock_model_that_generates_alike(
    tmp_path, family, kind, site, wanted
):
    lm = model(family)
    weights = {k: v.clone() for k, v in lm.model.state_dict().items()}
    config = lm.model.config.to_dict()
    steering = control(edit(lm, kind, site))
    export(lm, steering, to="folded", out=tmp_path / "out", prompts=PROMPTS)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert type(read).__name__ == wanted
    assert AutoConfig.from_pretrained(tmp_path / "out").architectures == [wanted]
    assert tokenizer.chat_template == lm.tokenizer.chat_template
    said = generate(lm, PROMPTS, steering, max_new_tokens=8).token_ids
    for prompt, tokens in zip(PROMPTS, said, strict=True):
        ids = torch.tensor([lm.encode_prompt(prompt)])
        own = read.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()
        ends = [i for i, token in enumerate(own) if token in lm.stop_ids]
        assert (own[: ends[0]] if ends else own) == tokens
    assert all(torch.equal(v, weights[k]) for k, v in lm.model.state_dict().items())
    assert lm.model.config.to_dict() == config


@pytest.mark.parametrize("options", [{"tie_word_embeddings": True}, {"mlp_bias": True}])
def test_shared_embeddings_and_biases_that_were_there_survive(tmp_path, options):
    lm = tiny_lm("llama", **options)
    export(lm, control(edit(lm, "add", "resid:1")), to="folded", out=tmp_path / "a",
           prompts=PROMPTS)  # fmt: skip
    lm = tiny_lm("qwen2", tie_word_embeddings=True)
    export(lm, control(edit(lm, "add", "resid:1")), to="folded", out=tmp_path / "b",
           prompts=PROMPTS)  # fmt: skip


@pytest.mark.parametrize("family", ["mistral", "qwen2"])
def test_a_sliding_window_is_not_rewritten_as_a_llama(tmp_path, family):
    window = {"sliding_window": 8}
    if family == "qwen2":
        window |= {"use_sliding_window": True, "max_window_layers": 0}
    lm = tiny_lm(family, **window)
    with pytest.raises(ExportError, match=r"sliding window.*--to peft"):
        export(lm, control(edit(lm, "add", "resid:1")), to="folded", out=tmp_path / "out",
               prompts=PROMPTS)  # fmt: skip


def test_a_mixture_of_experts_is_refused_by_name(tmp_path):
    lm = tiny_lm("mixtral")
    for to in ("folded", "peft"):
        with pytest.raises(ExportError, match="no single down projection"):
            export(lm, control(edit(lm, "add", "resid:1")), to=to, out=tmp_path / "out",
                   prompts=PROMPTS)  # fmt: skip
    export(lm, control(edit(lm, "add", "resid:1")), to="gguf", out=tmp_path / "out",
           prompts=PROMPTS)  # fmt: skip


@pytest.mark.parametrize("family", ["gpt_neox", "opt", "phi3", "olmo2"])
def test_other_families_are_exact_or_refused(tmp_path, family):
    lm = tiny_lm(family)
    for number, (kind, site) in enumerate(
        [("add", "resid:1"), ("scale", "neurons:1"), ("project", "heads:0"), ("add", "heads:1")]
    ):
        for to in ("folded", "peft"):
            try:
                export(lm, control(edit(lm, kind, site)), to=to,
                       out=tmp_path / f"{number}{to}", prompts=PROMPTS)  # fmt: skip
            except ExportError as error:
                assert kind == "add" and "Use --to" in str(error)


def test_no_number_of_neurons_makes_the_adapter_wider_than_the_model(tmp_path):
    lm = tiny_lm("llama", intermediate_size=128)
    steering = control(edit(lm, "scale", "neurons:1"))
    assert len(steering.edits[0].tensors["index"]) > 32
    export(lm, steering, to="peft", out=tmp_path / "out", prompts=PROMPTS)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 32
