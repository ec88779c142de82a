"""What a measure of dependence must say, against slow references and in its invariances."""

import math

import pytest
import torch

from valign.methods.mva.penalties import (
    MEASURES,
    Factors,
    dependence,
    hsic,
    hsic_released,
    orthogonal,
    penalty,
)

FREE = ["hsic", "orthogonal", "cosine"]


def drawn(seed, *, modules=1, rank=16, width=512, out=384, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    down = torch.rand(modules, rank, width, generator=rng, dtype=dtype) * 2 - 1
    up = torch.randn(modules, out, rank, generator=rng, dtype=dtype)
    return Factors(down / math.sqrt(width), up)


def rewritten(f, seed, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    r = torch.randn(f.down.shape[-2], f.down.shape[-2], generator=rng, dtype=f.down.dtype)
    return Factors(r @ f.down, scale * f.up @ torch.linalg.inv(r))


@pytest.mark.parametrize("name", FREE)
def test_independent_is_about_zero_and_identical_is_one(name):
    measure = MEASURES[name]
    chance = 16 / 512 if name == "orthogonal" else 0
    apart = torch.cat([measure(drawn(2 * s), drawn(2 * s + 1)) for s in range(8)])
    assert apart.mean().item() == pytest.approx(chance, abs=0.01)
    assert apart.abs().max() < chance + 0.03
    assert measure(drawn(0), drawn(0)).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", FREE)
def test_writing_and_size_of_an_update_do_not_matter(name):
    measure = MEASURES[name]
    one, two = drawn(0), drawn(1)
    two = Factors(torch.cat([one.down[:, :8], two.down[:, 8:]], 1), 0.5 * one.up + two.up)
    plain = measure(one, two)
    assert 0.05 < plain < 0.95
    torch.testing.assert_close(measure(rewritten(one, 5, 3.0), rewritten(two, 6, 0.01)), plain,
                               rtol=1e-5, atol=1e-7)  # fmt: skip


def test_shared_parts_are_seen():
    one, two = drawn(0), drawn(1)
    both = Factors(one.down, one.up + 0.3 * two.up)
    for name in FREE:
        assert MEASURES[name](one, both) > 0.5


def test_hsic_is_songs_estimator():
    """Against the three traces, written out, on the columns of the explicit update."""
    one, two = drawn(0, width=60, rank=4, out=9), drawn(0, width=60, rank=4, out=9)
    two = Factors(two.down, two.up + drawn(3, width=60, rank=4, out=9).up)

    def kernel(f):
        columns = (f.up[0] @ f.down[0]).T
        d = torch.cdist(columns, columns).square()
        n = len(d)
        median = d[torch.triu_indices(n, n, 1).unbind()].median()
        return torch.exp(-d / median) * (1 - torch.eye(n))

    def traces(k, l):
        n, ones = len(k), torch.ones(len(k), dtype=k.dtype)
        return ((k @ l).trace() + (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
                - 2 / (n - 2) * ones @ k @ l @ ones) / (n * (n - 3))  # fmt: skip

    k, l = kernel(one), kernel(two)
    wanted = traces(k, l) / (traces(k, k) * traces(l, l)).sqrt()
    torch.testing.assert_close(hsic(one, two)[0], wanted, rtol=1e-6, atol=1e-9)


def test_the_released_estimator_hardly_tells_independent_from_identical():
    one, two = drawn(0, rank=64, width=4096, out=8), drawn(1, rank=64, width=4096, out=8)
    same, apart = hsic_released(one, one), hsic_released(one, two)
    assert apart.item() == pytest.approx(1.236e-3, rel=0.02)  # the figure of an own check
    assert apart / same > 0.97
    closer = Factors(0.25 * one.down, one.up)
    assert hsic_released(closer, two) < 0.15 * apart  # pulling rows together is what it rewards


@pytest.mark.parametrize("name", [*FREE, "hsic-released"])
def test_gradients(name):
    one, two = drawn(0, rank=3, width=12, out=5), drawn(1, rank=3, width=12, out=5)
    two = Factors(two.down, two.up + one.up)
    down, up = one.down.clone().requires_grad_(), one.up.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: MEASURES[name](Factors(a, b), two), (down, up))


@pytest.mark.parametrize("name", MEASURES)
def test_a_fresh_adapter_has_no_penalty_and_a_finite_gradient(name):
    a, b = drawn(0, dtype=torch.float32), drawn(1, dtype=torch.float32)
    down, up = a.down[0].clone().requires_grad_(), torch.zeros_like(a.up[0]).requires_grad_()
    loss = penalty(name, {"q": (down, up)}, [{"q": (b.down[0], b.up[0])}])
    assert loss == 0 or name == "hsic-released"
    loss.backward()
    assert torch.isfinite(down.grad).all()
    assert up.grad is None or torch.isfinite(up.grad).all()


def test_the_gradient_stays_small_while_the_adapter_is():
    b = drawn(1, dtype=torch.float32)
    norms = []
    for size in (1e-4, 1e-2, 1.0):
        down, up = b.down[0].clone(), (size * b.up[0]).requires_grad_()
        noise = 1e-1 * size * drawn(2, dtype=torch.float32).up[0]
        penalty("hsic", {"q": (down, up + noise)}, [{"q": (b.down[0], b.up[0])}]).backward()
        norms.append(up.grad.norm().item())
    assert norms[0] < max(norms[1:])


def test_modules_are_averaged_over_shapes_and_named():
    a, b = drawn(0, modules=3), drawn(1, modules=3)
    small, other = drawn(2, width=64), drawn(3, width=64)
    one = {f"m{i}": (a.down[i], a.up[i]) for i in range(3)} | {"s": (small.down[0], small.up[0])}
    two = {f"m{i}": (b.down[i], b.up[i]) for i in range(3)} | {"s": (other.down[0], other.up[0])}
    each = dependence("orthogonal", one, two)
    assert list(each) == ["m0", "m1", "m2", "s"]
    assert each["m1"] == pytest.approx(float(orthogonal(
        Factors(a.down[1:2], a.up[1:2]), Factors(b.down[1:2], b.up[1:2]))))  # fmt: skip
    everything = penalty("orthogonal", one, [two, two])
    gates = torch.tensor([_gate(one[n], two[n]) for n in each], dtype=torch.float64)
    wanted = 2 * (gates * torch.tensor(list(each.values()), dtype=torch.float64)).mean()
    assert float(everything) == pytest.approx(float(wanted), rel=1e-5)
    assert penalty("none", one, [two]) == 0 == penalty("hsic", one, [])


def _gate(one, two):
    n, m = ((b @ a).square().sum() for a, b in (one, two))
    return n / (n + m / 100)
