"""Controls on disk: what is read is what was written, and nothing else is believed."""

import json
import pickle
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import valign.control.saving
from tests.lm.reference import KINDS, make_edit
from valign.control import (
    Control,
    ControlFileError,
    EditsControl,
    Gate,
    Site,
    TextControl,
    load,
)
from valign.values import Profile, Value, ValueSystem, load_system

OWN = ValueSystem(
    name="own",
    title="Our own",
    source="us",
    values=(
        Value(name="calm", title="Calm", definition="quiet", group="still", angle=10.0,
              keywords=("rest", "sleep")),
        Value(name="haste", title="Haste", definition="fast", group="quick", angle=190.0, worth=-1),
    ),
    group_titles=(("still", "Still"), ("quick", "Quick")),
    opposite_groups=(("still", "quick"),),
    also_in=(("calm", ("quick",)),),
)  # fmt: skip


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    return a == b


def assert_same_control(a, b):
    assert type(a) is type(b)
    assert a.target == b.target
    assert a.target.system == b.target.system
    assert a.provenance == b.provenance
    if isinstance(a, TextControl):
        assert a.instruction == b.instruction
        return
    assert len(a.edits) == len(b.edits)
    for x, y in zip(a.edits, b.edits, strict=True):
        for field in fields(x):
            if field.name != "tensors":
                assert same(getattr(x, field.name), getattr(y, field.name)), field.name
        assert list(map(str, sorted(x.tensors))) == sorted(y.tensors)
        assert all(same(x.tensors[name], y.tensors[name]) for name in x.tensors)
    assert (a.gate is None) == (b.gate is None)
    if a.gate is not None:
        assert set(a.gate.weights) == set(b.gate.weights)
        for site, (w, bias) in a.gate.weights.items():
            assert same(w, b.gate.weights[site][0])
            assert same(bias, b.gate.weights[site][1])


def edits_control(*kinds, gate=None, system=None, **options):
    system = system or load_system("schwartz10")
    target = Profile.from_array(system, [0.1 * (n % 5) for n in range(len(system))])
    edits = tuple(make_edit(kind, Site("resid", n % 3), 16, seed=n) for n, kind in enumerate(kinds))
    return EditsControl(target=target, edits=edits, gate=gate, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_kind_survives(kind, tmp_path):
    control = edits_control(kind, provenance={"method": kind, "seed": 3, "dose": {"p95": 0.25}})
    assert_same_control(load(control.scaled(0.123456789).save(tmp_path)),
                        control.scaled(0.123456789))  # fmt: skip


def test_gates_scopes_number_types_and_many_edits_survive(tmp_path):
    gate = Gate({Site("resid", 1): (torch.randn(16), torch.tensor(0.25)),
                 Site("neurons", 11): (torch.randn(64), torch.tensor(-3.0))})  # fmt: skip
    control = edits_control(*KINDS, "add", "add", gate=gate)
    half = make_edit("add", Site("logits"), 16, scope="all")
    half.tensors["vector"] = half.tensors["vector"].to(torch.bfloat16)
    control = EditsControl(target=control.target, edits=(*control.edits, half), gate=gate)
    assert_same_control(load(control.save(tmp_path / "a.safetensors")), control)


def test_words_survive(tmp_path):
    control = TextControl(target=Profile.of(load_system("hh"), helpful=1),
                          instruction="Sei freundlich.\n\tüß 你好 \"'", provenance={})  # fmt: skip
    assert_same_control(load(control.save(tmp_path)), control)


def test_a_users_own_system_travels_along(tmp_path):
    control = edits_control("add", system=OWN)
    loaded = load(control.save(tmp_path))
    assert loaded.target.system == OWN
    assert_same_control(loaded, control)


def test_views_of_one_tensor_are_written_apart(tmp_path):
    big = torch.randn(2, 16)
    one, two = (make_edit("add", Site("resid", n), 16) for n in range(2))
    one.tensors["vector"], two.tensors["vector"] = big[0], big.T[:, 1]
    control = EditsControl(target=edits_control("add").target, edits=(one, two))
    assert_same_control(load(control.save(tmp_path)), control)


def test_a_folder_gets_one_file_and_the_path_comes_back(tmp_path):
    control = edits_control("add")
    path = control.save(tmp_path / "run" / "deep")
    assert path == tmp_path / "run" / "deep" / "control.safetensors"
    assert_same_control(load(path), load(path.parent))
    assert [p.name for p in path.parent.iterdir()] == ["control.safetensors"]
    assert control.save(tmp_path / "x.safetensors") == tmp_path / "x.safetensors"


def test_the_file_is_plain_safetensors_with_a_json_header(tmp_path):
    path = edits_control("push").save(tmp_path)
    with safe_open(path, framework="np") as file:
        head = json.loads(file.metadata()["valign"])
    assert head["format"] == "valign-control/1"
    assert head["edits"][0]["site"] == "resid:0"
    assert b"pickle" not in path.read_bytes()
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(path.read_bytes())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    old = edits_control("add")
    path = old.save(tmp_path)

    def full_disk(tensors, filename, **options):
        Path(filename).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(valign.control.saving, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        edits_control("push").save(tmp_path)
    assert_same_control(load(path), old)
    assert list(tmp_path.iterdir()) == [path]


def test_provenance_that_is_no_json_is_refused(tmp_path):
    control = edits_control("add", provenance={"method": object()})
    with pytest.raises(ControlFileError, match="provenance"):
        control.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_says_how_one_is_made(tmp_path):
    with pytest.raises(ControlFileError, match=r"No control at .*control\.save"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(ControlFileError, match=r"No control at .*control\.safetensors"):
        load(tmp_path)


@pytest.mark.parametrize("size", [0, 7, 100, 1500, -1])
def test_a_truncated_file_is_refused(size, tmp_path):
    path = edits_control("push", "add").save(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ControlFileError, match="damaged or no safetensors"):
        load(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04zip", b"\x80\x04pickle.", b'{"json": 1}'])
def test_a_foreign_file_is_refused(content, tmp_path):
    path = tmp_path / "control.safetensors"
    path.write_bytes(content)
    with pytest.raises(ControlFileError, match="damaged or no safetensors"):
        load(path)


def test_an_adapter_is_no_control(tmp_path):
    path = tmp_path / "adapter.safetensors"
    save_file({"lora_A": torch.ones(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ControlFileError, match="no valign control"):
        load(path)


def rewrite(path, change):
    with safe_open(path, framework="pt") as file:
        head = json.loads(file.metadata()["valign"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(head, tensors)
    save_file(tensors, path, metadata={"valign": json.dumps(head)})


@pytest.mark.parametrize(
    "change",
    [
        lambda head, tensors: head.pop("target"),
        lambda head, tensors: head["edits"][0].pop("site"),
        lambda head, tensors: head["edits"][0].update(site="mind:3"),
        lambda head, tensors: head["edits"][0].update(kind="pickle"),
        lambda head, tensors: head["system"].update(values=[]),
        lambda head, tensors: head["system"].update(group_titles=[["a"]]),
        lambda head, tensors: head.update(system=[1]),
        lambda head, tensors: head["target"].update(benevolence=7),
        lambda head, tensors: head["target"].update(nobody=1),
        lambda head, tensors: tensors.pop("edit.0.vector"),
        lambda head, tensors: tensors.update({"edit.0.vector": torch.tensor([float("inf")])}),
        lambda head, tensors: tensors.pop("gate.resid:1.bias"),
        lambda head, tensors: head.update(kind="weights"),
    ],
)
def test_a_changed_header_is_refused_as_a_control_file_error(change, tmp_path):
    gate = Gate({Site("resid", 1): (torch.randn(16), torch.tensor(0.0))})
    path = edits_control("add", gate=gate).save(tmp_path)
    rewrite(path, change)
    with pytest.raises(ControlFileError):
        load(path)


def test_a_newer_format_is_refused_by_name(tmp_path):
    path = edits_control("add").save(tmp_path)
    rewrite(path, lambda head, tensors: head.update(format="valign-control/9"))
    with pytest.raises(ControlFileError, match="valign-control/9"):
        load(path)


def test_kinds_that_have_no_file_say_so(tmp_path):
    class Bridge(Control):
        kind = "bridge"

        def scaled(self, strength):
            return self

    with pytest.raises(ControlFileError, match="bridge"):
        Bridge(target=edits_control("add").target).save(tmp_path)
