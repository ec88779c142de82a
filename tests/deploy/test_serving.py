"""What `valign serve` makes of what it is given, up to the command that becomes vLLM."""

import json
import os

import pytest

from tests.cli.conftest import command, model, model_folder, refused  # noqa: F401
from tests.deploy.cases import control, edit
from tests.lm.adapters import mixture
from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.control import AdapterError, RewriteControl
from valign.deploy import Certificate, ExportError, export
from valign.deploy.adapters import CONFIG, options, read_servable
from valign.deploy.vllm_plugin import doctor
from valign.lm import HostModel


@pytest.fixture
def files(model, tmp_path):  # noqa: F811
    lm = HostModel.load(model)
    made = {
        "add": control(edit(lm, "add", "resid:1")),
        "mixture": mixture(lm, a=0.2, b=-0.1),
        "soft": RewriteControl(target=TARGET, template="{{ source }} gently", max_new_tokens=4),
        "far": RewriteControl(target=TARGET, template="{{ source }}", rewriter="/nobody/here"),
    }
    found = {n: c.save(tmp_path / "in" / f"{n}.safetensors") for n, c in made.items()}
    export(HostModel.load(model, dtype="float32"), made["mixture"], to="peft",
           out=tmp_path / "in" / "ready", prompts=PROMPTS[:2])  # fmt: skip
    found["ready"] = tmp_path / "in" / "ready"
    lines = tmp_path / "prompts.txt"
    lines.write_text("\n".join(PROMPTS))
    return {**found, "prompts": lines}


@pytest.fixture
def serve(model, files, monkeypatch, command):  # noqa: F811
    """Runs the command up to where vLLM would take over; gives its arguments and environment."""

    def run(*names, more=()):
        taken = {}

        def execve(path, arguments, environment):
            taken.update(arguments=arguments, environment=environment)
            raise SystemExit(0)

        monkeypatch.setattr(os, "execve", execve)
        monkeypatch.setattr(doctor, "require_ready", lambda *, profiles: None)
        given = [word for name in names for word in ("--control", files[name])]
        said = command("serve", model, *given, "--prompts", files["prompts"], "--name", "m", *more)
        return said, taken

    return run


def after(arguments: list[str], option: str) -> list[str]:
    """What stands behind an option, up to the next."""
    rest = arguments[arguments.index(option) + 1 :]
    return rest[: next((n for n, word in enumerate(rest) if word.startswith("--")), len(rest))]


def test_profiles_rewrites_and_adapters_of_one_command(serve):
    said, taken = serve("add", "mixture", "soft", "ready", more=["--port", "1"])
    assert said.code == 0, said
    arguments = taken["arguments"]
    assert after(arguments, "--served-model-name") == ["m", "m:add", "m:soft"]
    modules = [json.loads(text) for text in after(arguments, "--lora-modules")]
    assert {m["name"] for m in modules} == {"m:mixture", "m:ready"}
    for module in modules:
        assert Certificate.read(module["path"]).to == "peft"
    assert after(arguments, "--max-lora-rank") == ["8"] and after(arguments, "--max-loras") == ["3"]
    assert arguments[-2:] == ["--port", "1"]
    assert Certificate.read(taken["environment"]["VALIGN_BUNDLE"]).to == "vllm"
    assert taken["environment"]["VALIGN_REWRITERS"] == "{}"


def test_adapters_alone_start_no_plugin(serve):
    said, taken = serve("ready")
    assert said.code == 0 and "--middleware" not in taken["arguments"]
    assert "VALIGN_REWRITERS" not in taken["environment"]


def test_what_cannot_be_served_together_is_refused(serve, files, model, tmp_path):  # noqa: F811
    lm = HostModel.load(model, dtype="float32")
    export(lm, control(edit(lm, "add", "resid:2")), to="vllm", out=tmp_path / "in" / "b",
           prompts=PROMPTS[:2])  # fmt: skip
    files["b"] = tmp_path / "in" / "b"
    said, taken = serve("b", "ready")
    assert said.code == 0 and "m:control" in taken["arguments"]
    assert "name one bundle" in serve("b", "add")[0].error
    assert "rename one" in serve("add", "add")[0].error
    assert "valign sets --max-loras" in serve("ready", more=["--max-loras", "1"])[0].error


def test_a_rewriter_of_its_own_is_refused_by_name(serve):
    said, taken = serve("far")
    assert said.code == 2 and "/nobody/here" in said.error and not taken


def test_adapters_vllm_would_refuse_are_refused_by_name(files, model, tmp_path):  # noqa: F811
    lm = HostModel.load(model, dtype="float32")
    export(lm, control(edit(lm, "add", "resid:1")), to="peft", out=tmp_path / "biased",
           prompts=PROMPTS[:2])  # fmt: skip
    with pytest.raises(ExportError, match=r"lora_bias.*--control CONTROL"):
        read_servable(tmp_path / "biased", str(model))
    assert read_servable(files["ready"], str(model)).factors
    tiny_lm("llama", hidden_size=64).model.save_pretrained(tmp_path / "wide")
    with pytest.raises(ExportError, match="made for another model"):
        read_servable(files["ready"], str(tmp_path / "wide"))
    with pytest.raises(ExportError, match=CONFIG):
        read_servable(tmp_path, str(model))
    (files["ready"] / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors"):
        read_servable(files["ready"], str(model))


@pytest.mark.parametrize(("rank", "asked"), [(1, "1"), (2, "8"), (17, "32"), (512, "512")])
def test_the_next_rank_that_vllm_takes(tmp_path, rank, asked):
    (tmp_path / CONFIG).write_text(json.dumps({"r": rank}))
    assert after(options("m", {"a": tmp_path}), "--max-lora-rank") == [asked]


def test_ranks_beyond_are_refused(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps({"r": 8, "rank_pattern": {"q_proj": 513}}))
    with pytest.raises(ExportError, match=r"rank 513.*folded"):
        options("m", {"a": tmp_path})
    assert options("m", {}) == []
