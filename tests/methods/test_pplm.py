"""PPLM: the steps are those of the log-likelihood, and they end where it is convinced."""

import numpy as np
import pytest
import torch

from tests.lm.tiny import tiny_lm
from tests.methods.test_scorers import acted
from tests.methods.toy import SYSTEM, toy_corpus
from valign.methods import get_method
from valign.methods.pplm import log_sigmoid_units
from valign.methods.readings import read
from valign.values import Profile

CORPUS = toy_corpus()


def test_the_units_make_a_softplus():
    shift, weight = log_sigmoid_units()
    x = torch.linspace(-40, 40, 801, dtype=torch.double, requires_grad=True)
    z = x[:, None] - torch.tensor(shift)
    sum_of_units = (torch.nn.functional.gelu(z) * torch.tensor(weight)).sum()
    slope = torch.autograd.grad(sum_of_units, x)[0]
    assert float((slope - x.detach().sigmoid()).abs().max()) < 0.004
    assert np.sum(weight) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "target", [dict(benevolence=1), dict(power=-1), dict(benevolence=1, power=-0.5)]
)
def test_steps_climb_the_log_likelihood_of_the_probes(target):
    lm = tiny_lm()
    steps = 3
    profile = Profile.of(SYSTEM, **target)
    control = get_method("pplm", layers=1, steps=steps).fit(lm, CORPUS, profile)
    before, after = acted(lm, control)
    site = control.edits[0].site
    probes = {v: read(lm, CORPUS, "resid", v, positions="mean")[site].probe for v in target}
    a = before.clone()
    for _ in range(steps):
        y = a.clone().requires_grad_()
        score = sum(
            abs(s) * torch.nn.functional.logsigmoid(
                (1 if s > 0 else -1) * (probes[v].weight @ y + float(probes[v].bias))
            )
            for v, s in target.items()
        )  # fmt: skip
        a = a + torch.autograd.grad(score, y)[0] * control.edits[0].strength
    moved = (a - before).norm()
    assert moved > 0
    assert (after - a).norm() < 0.02 * moved + 1e-5


def test_nothing_moves_where_the_probe_is_convinced():
    lm = tiny_lm()
    control = get_method("pplm", layers=1).fit(lm, CORPUS, Profile.of(SYSTEM, benevolence=1))
    edit = control.edits[0]
    w = read(lm, CORPUS, "resid", "benevolence", positions="mean")[edit.site].probe.weight
    far = 30 * w / w.square().sum()

    def move(a):
        y = a.clone().requires_grad_()
        score = edit.tensors["w2"] @ torch.nn.functional.gelu(
            edit.tensors["w1"] @ y + edit.tensors["b1"]
        )
        return float(torch.autograd.grad(score, y)[0].norm() / w.norm())

    assert move(far) < 0.01
    assert move(-far) == pytest.approx(1, abs=0.01)
