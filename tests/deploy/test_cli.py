"""`valign export` as a person types it."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import command, model, model_folder, refused  # noqa: F401
from tests.deploy.cases import control, edit
from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS
from valign.control import TextControl
from valign.deploy import Certificate, CertificateError, read_bundle
from valign.lm import HostModel


@pytest.fixture
def files(model, tmp_path) -> dict[str, Path]:  # noqa: F811
    lm = HostModel.load(model)
    made = {
        "add": control(edit(lm, "add", "resid:1")),
        "late": control(edit(lm, "add", "resid:1", scope="generation")),
        "push": control(edit(lm, "push", "resid:1")),
        "words": TextControl(target=TARGET, instruction="the family should help"),
    }
    return {n: c.save(tmp_path / "in" / f"{n}.safetensors") for n, c in made.items()}


@pytest.fixture
def arguments(model, files, tmp_path):  # noqa: F811
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))

    def typed(to, *names, out="out", more=()):
        return ["export", *(files[n] for n in names), "--to", to, "--model", model,
                "--prompts", prompts, "--out", tmp_path / out, "--tokens", 4, *more]  # fmt: skip

    return typed


@pytest.mark.parametrize(
    ("to", "name", "holds"),
    [
        ("folded", "add", "config.json"),
        ("peft", "add", "adapter_model.safetensors"),
        ("gguf", "add", "control.gguf"),
        ("prompt", "words", "messages.json"),
        ("vllm", "push", "bundle.safetensors"),
    ],
)
def test_each_format_is_written_with_its_certificate(command, arguments, tmp_path, to, name, holds):  # noqa: F811
    said = command(*arguments(to, name))
    assert said.code == 0, said
    assert str(tmp_path / "out") in said.out and "greedy tokens equal" in said.out
    assert (tmp_path / "out" / holds).is_file()
    assert Certificate.read(tmp_path / "out").to == to


def test_json_prints_the_certificate(command, arguments):  # noqa: F811
    row = json.loads(command(*arguments("peft", "add", more=["--json"])).out)
    assert row["holds"] and row["to"] == "peft" and row["positions"] >= len(PROMPTS)


def test_several_controls_become_the_profiles_of_one_bundle(command, arguments, tmp_path):  # noqa: F811
    assert command(*arguments("vllm", "add", "push", "late", "words")).code == 0
    names = [p["name"] for p in read_bundle(tmp_path / "out").profiles]
    assert names == ["add", "push", "late", "words"]


def test_widening_is_asked_for_and_said(command, refused, arguments):  # noqa: F811
    assert "--everywhere" in refused(*arguments("folded", "late"))
    said = command(*arguments("folded", "late", more=["--everywhere"]))
    assert said.code == 0 and "Measure its dose anew" in said.error


def test_refusals_leave_nothing_and_end_with_2(refused, arguments, tmp_path):  # noqa: F811
    assert "--to vllm" in refused(*arguments("folded", "push"))
    assert "Did you mean peft" in refused(*arguments("pfet", "add"))
    assert "exactly one control" in refused(*arguments("gguf", "add", "late"))
    assert "text control" in refused(*arguments("gguf", "words"))
    assert not (tmp_path / "out").exists()


def test_a_certificate_that_does_not_hold_ends_with_1(command, arguments, monkeypatch, tmp_path):  # noqa: F811
    def failing(*args, **options):
        raise CertificateError("logits differ by up to 2.00e-01. Nothing was written.")

    monkeypatch.setattr("valign.deploy.export", failing)
    said = command(*arguments("folded", "add"))
    assert said.code == 1 and "logits differ" in said.error and not said.out.strip()
    assert not (tmp_path / "out").exists()
