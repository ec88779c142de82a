"""The plug-in's edges: asleep without a bundle, light, and plain about what it refuses."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from valign.cli import app
from valign.deploy import read_bundle
from valign.deploy.vllm_plugin import doctor, untested
from valign.deploy.vllm_plugin.profile_models import rewritten
from valign.deploy.vllm_plugin.request import Catalog, Entry, RequestError, read_catalog
from valign.deploy.vllm_plugin.untested import StartError

HEAVY = ("transformers", "scipy", "sklearn", "pyarrow", "plotly", "valign.lm", "vllm")


def loaded(code: str, **environment: str) -> list[str]:
    """Which heavy packages a piece of code imports, in a process of its own."""
    check = f"{code}; import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    import os

    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True,
        env={**{k: v for k, v in os.environ.items() if k != "VALIGN_BUNDLE"}, **environment},
    )  # fmt: skip
    return eval(done.stdout.splitlines()[-1])


def test_the_plugin_sleeps_without_a_bundle_and_is_light(served):
    assert loaded("import valign") == []
    code = "from valign.deploy.vllm_plugin import register; register()"
    assert loaded(code) == []
    code = (
        "from valign.deploy.vllm_plugin.active import active_catalog; "
        "active_catalog().mix({'valign': 'add=1'})"
    )
    assert loaded(code, VALIGN_BUNDLE=str(served.bundle)) == []


def configuration(**changes) -> SimpleNamespace:
    """A configuration of vLLM that is fine, with changes such as `parallel_config.x=2`."""
    of = SimpleNamespace
    config = of(
        speculative_config=None, lora_config=None, quant_config=None, kv_transfer_config=None,
        kv_events_config=None, use_v2_model_runner=False,
        device_config=of(device_type="cpu"),
        parallel_config=of(
            tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1,
            decode_context_parallel_size=1, prefill_context_parallel_size=1, use_ubatching=False,
            use_sequence_parallel_moe=False,
        ),
        compilation_config=of(pass_config=of(enable_sp=False)),
        model_config=of(
            enable_prompt_embeds=False, is_multimodal_model=False, runner_type="generate",
            architectures=["LlamaForCausalLM"], model="m",
            hf_text_config=of(num_hidden_layers=3, hidden_size=64),
        ),
    )  # fmt: skip
    for path, value in changes.items():
        *parents, name = path.split("__")
        place = config
        for parent in parents:
            place = getattr(place, parent)
        setattr(place, name, value)
    return config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"speculative_config": object()}, "speculative decoding"),
        ({"parallel_config__tensor_parallel_size": 2}, "--tensor-parallel-size 1"),
        ({"parallel_config__pipeline_parallel_size": 2}, "pipeline parallelism"),
        ({"parallel_config__data_parallel_size": 2}, "data parallelism"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "context parallelism"),
        ({"compilation_config__pass_config__enable_sp": True}, "sequence parallelism"),
        ({"parallel_config__use_sequence_parallel_moe": True}, "sequence parallelism"),
        ({"parallel_config__use_ubatching": True}, "microbatching"),
        ({"lora_config": SimpleNamespace(max_loras=1)}, "--max-loras one more"),
        ({"quant_config": object()}, "quantised weights"),
        ({"kv_transfer_config": object()}, "KV transfer"),
        ({"model_config__runner_type": "pooling"}, "pooling"),
        ({"use_v2_model_runner": True}, "VLLM_USE_V2_MODEL_RUNNER=0"),
    ],
)
def test_untested_modes_are_refused_by_name(change, says):
    untested.refuse_untested(configuration())
    untested.refuse_untested(configuration(lora_config=SimpleNamespace(max_loras=3)))
    with pytest.raises(StartError, match=says):
        untested.refuse_untested(configuration(**change))


def test_adapters_that_come_later_may_fill_the_slot_that_must_stay_empty(monkeypatch):
    config = configuration(lora_config=SimpleNamespace(max_loras=3))
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    with pytest.raises(StartError, match="loaded later"):
        untested.refuse_untested(config)
    config.device_config.device_type = "cuda"
    untested.refuse_untested(config)


def test_a_bundle_serves_the_model_it_was_made_for(served):
    bundle = read_bundle(served.bundle)
    assert untested.architecture(configuration(), bundle) == "LlamaForCausalLM"
    for change, says in (
        ({"model_config__architectures": ["MambaForCausalLM"]}, "not tested with Mamba"),
        ({"model_config__architectures": ["Qwen2ForCausalLM"]}, "made for .* class"),
        ({"model_config__hf_text_config": SimpleNamespace(num_hidden_layers=4, hidden_size=64)},
         "number of layers 4"),
    ):  # fmt: skip
        with pytest.raises(StartError, match=says):
            untested.architecture(configuration(**change), bundle)


def body(**fields) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


@pytest.fixture
def catalog(served) -> Catalog:
    found = read_catalog(read_bundle(served.bundle))
    words = Entry(
        "words", 99, {"security": 1.0}, None, frozenset(), None, frozenset(), None, "Be safe."
    )
    return Catalog(found.identity, {**found.entries, "words": words})


def test_model_names_become_profiles_and_instructions(catalog):
    def out(**fields) -> dict:
        return json.loads(rewritten(body(**fields), catalog, chat=True))

    assert out(model="m:add")["vllm_xargs"] == {"valign": "add=1"}
    assert out(model="a:b:add", vllm_xargs={"x": 1})["vllm_xargs"] == {"x": 1, "valign": "add=1"}
    said = {"role": "user", "content": "Hello"}
    assert out(model="m:words", messages=[said])["messages"] == [
        {"role": "system", "content": "Be safe."}, said
    ]  # fmt: skip
    told = {"role": "system", "content": "Be brief."}
    assert out(model="m:words", messages=[told, said])["messages"] == [
        {"role": "system", "content": "Be safe.\n\nBe brief."}, said
    ]  # fmt: skip
    for same in (body(), body(model="m:nobody"), body(model=":add"), b"{", b"[]", b"7", b"\xff"):
        assert rewritten(same, catalog, chat=True) is same


def test_what_a_model_name_cannot_mean_is_refused(catalog):
    for fields, says in (
        (dict(model="m:add", vllm_xargs={"valign": "push=1"}), "model='m'"),
        (dict(model="m:add", use_beam_search=True), "Beam search"),
        (dict(vllm_xargs={"valign": "push=1"}, use_beam_search=True), "Beam search"),
        (dict(model="m:words"), "chat/completions"),
    ):
        with pytest.raises(RequestError, match=says):
            rewritten(body(**fields), catalog, chat=False)


@pytest.mark.skipif(bool(importlib.util.find_spec("vllm")), reason="vLLM is installed")
def test_serving_without_vllm_says_what_to_install(served):
    result = CliRunner().invoke(app, ["serve", str(served.model)])
    assert isinstance(result.exception, StartError) and "valign[vllm]" in str(result.exception)
    result = CliRunner().invoke(app, ["serve", "--doctor"])
    assert result.exit_code == 1 and "valign[vllm]" in result.stdout


@pytest.mark.vllm
@pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed")
def test_the_doctor_finds_every_seam(monkeypatch):
    lines, sound = doctor.report()
    assert sound and doctor.TESTED in lines[0] and not any("BROKEN" in line for line in lines)
    monkeypatch.setenv("VLLM_PLUGINS", "other")
    with pytest.raises(StartError, match="VLLM_PLUGINS=other"):
        doctor.require_ready(profiles=True)
    monkeypatch.setitem(
        doctor.SEAMS, "vllm.v1.worker.worker_base:WorkerWrapperBase.init_device", ("self", "more")
    )
    with pytest.raises(StartError, match=r"init_device takes \(self\), expected \(self, more\)"):
        doctor.require_seams()
