import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from valign.control import Edit, EditError, EditsControl, Site, TextControl
from valign.values import Profile, load_system

R0 = Site("resid", 0)
TARGET = Profile.of(load_system("schwartz10"), power=-1)


@given(st.sampled_from(["resid", "neurons", "heads"]), st.integers(0, 999))
def test_a_site_reads_what_it_writes(kind, layer):
    assert Site.parse(str(Site(kind, layer))) == Site(kind, layer)


def test_the_logits_have_no_layer():
    assert str(Site("logits")) == "logits"
    assert Site.parse("logits") == Site("logits")


@pytest.mark.parametrize("text", ["", "mlp:3", "resid:-1", "resid:x", "resid:1:2"])
def test_a_wrong_site_shows_a_right_one(text):
    with pytest.raises(EditError, match="resid:5"):
        Site.parse(text)


PUSH = dict(weight=torch.ones(2, 4), bias=torch.ones(2), target=torch.ones(2),
            direction=torch.ones(2, 4))  # fmt: skip
INDEX = torch.tensor([0, 2])


@pytest.mark.parametrize(
    "kind, tensors, what",
    [
        ("turn", dict(vector=torch.ones(4)), "Unknown edit kind 'turn'"),
        ("add", dict(weight=torch.ones(4)), "A add edit brings"),
        ("add", dict(vector=torch.ones(1, 4)), r"vector \(width,\)"),
        ("add", dict(vector=torch.tensor([1.0, float("nan")])), "not finite"),
        ("push", PUSH | dict(direction=torch.ones(1, 4)), r"\(k, width\)"),
        ("push", PUSH | dict(target=torch.ones(3)), r"target \(k,\)"),
        ("scale", dict(index=torch.ones(2), factor=torch.ones(2)), "integers"),
        ("scale", dict(index=INDEX, factor=torch.ones(3)), r"all \(n,\)"),
        ("clamp", dict(index=INDEX, low=torch.ones(2), high=torch.zeros(2)), "low above its high"),
        ("project", dict(vector=torch.ones(4)), "norm 1, got 2"),
        ("gradient", dict(w1=torch.ones(3, 4), b1=torch.ones(3), w2=torch.ones(2)), "w2"),
        ("rotate", dict(plane=torch.eye(2, 4), angle=torch.zeros(1)), r"angle \(\)"),
        ("rotate", dict(plane=torch.eye(3, 4), angle=torch.tensor(0.0)), "1 or 2"),
        ("rotate", dict(plane=torch.ones(2, 4), angle=torch.tensor(0.0)), "right angle"),
    ],
)
def test_tensors_that_do_not_fit_their_kind_are_refused(kind, tensors, what):
    with pytest.raises(EditError, match=what):
        Edit(R0, kind, tensors)


@pytest.mark.parametrize("option", [dict(hold=True), dict(low=torch.zeros(4))])
def test_options_of_a_push_belong_to_a_push(option):
    Edit(R0, "push", PUSH, **option)
    with pytest.raises(EditError, match="belong to push edits"):
        Edit(R0, "add", dict(vector=torch.ones(4)), **option)


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_strengths_multiply_and_the_original_stays(a, b):
    edit = Edit(R0, "add", dict(vector=torch.ones(4)))
    control = EditsControl(target=TARGET, edits=(edit, edit))
    twice = control.scaled(a).scaled(b)
    assert [e.strength for e in twice.edits] == pytest.approx([a * b, a * b])
    assert edit.strength == 1.0
    assert twice.target == TARGET


def test_words_have_no_strength():
    words = TextControl(target=TARGET, instruction="care")
    assert words.scaled(1.0) is words
    with pytest.raises(EditError, match=r"no strength.*DoseMeter"):
        words.scaled(2.0)


def test_a_control_says_what_made_it():
    assert EditsControl(target=TARGET).method == "custom"
    assert EditsControl(target=TARGET, provenance={"method": "caa"}).method == "caa"
