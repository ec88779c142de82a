"""Models that bring Python code of their own: it runs only on request, and then anywhere."""

import json
import shutil

import pytest

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""
LOADS = ("fit", "run", "front", "generate", "export", "profile", "ask", "drift", "svo", "eval",
         "rewrite")  # fmt: skip


@pytest.fixture
def own(model, tmp_path):
    """The tiny model as a checkpoint that needs its own code."""
    folder = tmp_path / "own"
    shutil.copytree(model, folder)
    (folder / "own_code.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own", "architectures": ["OwnModel"],
        "auto_map": {"AutoConfig": "own_code.OwnConfig",
                     "AutoModelForCausalLM": "own_code.OwnModel"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_its_code_runs_only_on_request(command, refused, own, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    say = ("generate", "rest or work ?", "--model", own, "--max-new-tokens", 3)
    assert "if you trust that: --trust-remote-code" in refused(*say)
    said = command(*say, "--trust-remote-code")
    assert said.code == 0, said


@pytest.mark.parametrize("name", LOADS)
def test_every_command_that_loads_a_model_takes_the_option(command, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert "--trust-remote-code" in command(name, "--help").out
