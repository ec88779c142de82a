"""The push formula on plain tensors: exact, minimal, local (notes on ConVA and NeVA)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from valign.control import Edit, Site
from valign.methods.errors import FitError
from valign.methods.push import dual_basis, logit, push_edit

SITE = Site("neurons", 0)


def run(edit: Edit, a: torch.Tensor) -> torch.Tensor:
    """The algebra of `valign.control.edit`, written out slowly."""
    t = {name: tensor.double() for name, tensor in edit.tensors.items()}
    rows = []
    for row in a.double():
        short = torch.relu(t["target"] - (t["weight"] @ row + t["bias"]))
        moved = row + edit.strength * (short[:, None] * t["direction"]).sum(0)
        rows.append(moved)
    return torch.stack(rows)


def one(width=12, free=None, share=1.0, p0=0.9, metric=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, width, generator=generator)
    bias = torch.randn(1, generator=generator)
    return push_edit(SITE, weight, bias, torch.tensor([logit(p0)]), torch.tensor([share]),
                     free=free, metric=metric)  # fmt: skip


def probability(edit, a):
    t = edit.tensors
    return torch.sigmoid(a.double() @ t["weight"][0].double() + t["bias"][0])


@given(seed=st.integers(0, 10_000), p0=st.sampled_from([0.6, 0.8, 0.9, 0.975]))
def test_reaches_p0_exactly_where_it_was_below_and_nothing_else_moves(seed, p0):
    edit = one(seed=seed, p0=p0)
    a = torch.randn(20, 12, generator=torch.Generator().manual_seed(seed + 1))
    before, after = probability(edit, a), probability(edit, run(edit, a))
    below = before < p0
    torch.testing.assert_close(after[below], torch.full_like(after[below], p0), atol=1e-4, rtol=0)
    assert torch.equal(run(edit, a)[~below], a.double()[~below])


@given(seed=st.integers(0, 10_000))
def test_coordinates_outside_the_choice_stay_bit_for_bit(seed):
    generator = torch.Generator().manual_seed(seed)
    free = torch.rand(12, generator=generator) < 0.4
    free[0] = True
    edit = one(free=free, seed=seed)
    a = torch.randn(20, 12, generator=generator)
    after = run(edit, a)
    assert torch.equal(after[:, ~free], a.double()[:, ~free])
    assert (probability(edit, after) >= 0.9 - 1e-4).all()


@given(seed=st.integers(0, 10_000))
def test_no_feasible_move_on_the_choice_is_shorter(seed):
    generator = torch.Generator().manual_seed(seed)
    free = torch.arange(12) < 5
    edit = one(free=free, seed=seed)
    w = edit.tensors["weight"][0].double() * free
    a = torch.randn(1, 12, generator=generator)
    move = (run(edit, a) - a)[0]
    short = float(torch.relu(edit.tensors["target"] - a @ edit.tensors["weight"].T
                             - edit.tensors["bias"]))  # fmt: skip
    for _ in range(30):
        other = torch.randn(12, generator=generator, dtype=torch.float64) * free
        other = other + (short - w @ other) / (w @ w) * w  # onto the constraint
        assert w @ other >= short - 1e-9
        assert move.norm() <= other.norm() + 1e-9


def test_all_coordinates_give_the_dense_closed_form():
    free = torch.ones(12, dtype=torch.bool)
    a = torch.randn(8, 12)
    edit = one(free=free)
    w, b = edit.tensors["weight"][0].double(), edit.tensors["bias"][0].double()
    eps = torch.relu(logit(0.9) - a.double() @ w - b) / w.norm()
    torch.testing.assert_close(run(edit, a), a + eps[:, None] * w / w.norm(), atol=1e-5, rtol=1e-5)


def test_a_half_score_goes_half_of_the_way_in_logits():
    edit = one(share=0.5, p0=0.99)
    a = -edit.tensors["weight"] * 0.3
    before = torch.logit(probability(edit, a))
    after = torch.logit(probability(edit, run(edit, a)))
    torch.testing.assert_close(after, (before + logit(0.99)) / 2, atol=1e-4, rtol=0)


@given(seed=st.integers(0, 10_000), k=st.integers(2, 5))
def test_several_values_are_all_brought_to_their_targets(seed, k):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, 30, generator=generator)
    free = torch.rand(30, generator=generator) < 0.7
    free[:6] = True
    target = torch.full((k,), logit(0.9))
    edit = push_edit(SITE, weight, torch.zeros(k), target, torch.ones(k), free=free)
    t = edit.tensors
    torch.testing.assert_close(t["weight"] @ t["direction"].T, torch.eye(k), atol=1e-4, rtol=1e-4)
    assert not t["direction"][:, ~free].any()
    a = torch.randn(10, 30, generator=generator)
    reached = run(edit, a) @ weight.T.double()
    assert (reached >= target - 1e-3).all()
    held = (a @ weight.T) > target  # satisfied probes are left where they were
    torch.testing.assert_close(reached[held], (a @ weight.T).double()[held], atol=1e-3, rtol=1e-4)


def test_dear_coordinates_move_less():
    metric = torch.ones(12)
    metric[:6] = 100.0
    a = torch.full((1, 12), -3.0)
    a = a * torch.sign(one().tensors["weight"])
    plain, weighted = run(one(), a) - a, run(one(metric=metric), a) - a
    share = weighted[0, :6].norm() / weighted.norm()
    assert share > plain[0, :6].norm() / plain.norm()
    assert probability(one(), run(one(metric=metric), a)).item() == pytest.approx(0.9, abs=1e-4)


def test_values_that_cannot_be_told_apart_are_refused():
    weight = torch.randn(1, 8).repeat(2, 1)
    with pytest.raises(FitError, match="moved apart"):
        dual_basis(weight)
    with pytest.raises(FitError, match="zero"):
        dual_basis(torch.zeros(1, 8))


def test_logit_of_certainty_is_finite():
    assert logit(1.0) < 20
    assert logit(0.5) == 0
