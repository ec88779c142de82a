import torch
from hypothesis import given
from hypothesis import strategies as st

from valign.methods.neurons import against_others, choose, neutral_move, rivals
from valign.values import load_system

SYSTEM = load_system("schwartz10")


def test_what_all_values_share_is_gone_after_the_contrast():
    own = torch.randn(10, 50)
    shared = torch.randn(50) * 100
    torch.testing.assert_close(
        against_others(own + shared), against_others(own), atol=1e-3, rtol=1e-3
    )
    single = torch.randn(1, 50)
    assert torch.equal(against_others(single), single)


def test_contrast_is_with_the_mean_of_the_others():
    rows = torch.randn(4, 7)
    slow = torch.stack([rows[i] - torch.stack([rows[j] for j in range(4) if j != i]).mean(0)
                        for i in range(4)])  # fmt: skip
    torch.testing.assert_close(against_others(rows), slow)


def test_rivals_follow_the_value_circle():
    names = SYSTEM.names
    assert not rivals(SYSTEM, names, "none").any()
    everyone = rivals(SYSTEM, names, "any")
    assert torch.equal(everyone, ~torch.eye(10, dtype=torch.bool))
    outside = rivals(SYSTEM, names, "out_of_group")
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            same = SYSTEM[a].group == SYSTEM[b].group
            assert bool(outside[i, j]) == (not same)


def test_choice_takes_the_best_positive_and_refills_what_rivals_hold():
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0, -9.0], [9.0, -1.0, -1.0, 0.1, 0.2]])
    alone = torch.tensor([False, False])
    rival = torch.tensor([False, True])
    assert choose(scores, 0, 2, alone).tolist() == [0, 1]
    assert choose(scores, 0, 2, rival).tolist() == [1, 2]
    assert choose(scores, 1, 5, alone).tolist() == [0, 3, 4]


@given(seed=st.integers(0, 10_000))
def test_a_neutral_move_raises_its_value_and_leaves_the_others(seed):
    generator = torch.Generator().manual_seed(seed)
    effect = torch.randn(5, 60, generator=generator)
    cheap = torch.rand(60, generator=generator) + 0.1
    cheap[40:] = 0
    delta = neutral_move(effect, 2, cheap)
    rise = effect @ delta
    torch.testing.assert_close(rise, torch.tensor([0.0, 0, 1, 0, 0]), atol=1e-3, rtol=0)
    assert not delta[40:].any()


def test_values_that_always_rise_together_make_no_huge_shift():
    effect = torch.randn(3, 40)
    effect[1] = effect[0] * (1 + 1e-6)
    delta = neutral_move(effect, 0, torch.ones(40))
    lone = neutral_move(effect[[0, 2]], 0, torch.ones(40))
    assert delta.norm() < 3 * lone.norm()


def test_a_neutral_move_is_the_cheapest():
    effect, cheap = torch.randn(3, 20).double(), torch.rand(20).double() + 0.1
    delta = neutral_move(effect, 0, cheap)
    price = (delta**2 / cheap).sum()
    null = torch.linalg.svd(effect).Vh[3:]
    for _ in range(30):
        other = delta + torch.randn(17).double() @ null
        assert price <= (other**2 / cheap).sum() + 1e-9
