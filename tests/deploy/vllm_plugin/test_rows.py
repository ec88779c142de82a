"""The worker's half without vLLM: flat batches in any chunks do what the hooked model does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.deploy.vllm_plugin.profiles import MIXES, mixed, some_prompts
from valign.deploy import read_bundle
from valign.deploy.vllm_plugin import canary, steering
from valign.deploy.vllm_plugin.request import read_catalog
from valign.deploy.vllm_plugin.rows import Rows
from valign.deploy.vllm_plugin.untested import StartError
from valign.lm.hooks import hooked


@pytest.fixture
def bundle(served):
    return read_bundle(served.bundle)


def made(bundle, *, tokens=200, requests=8, replayed=False):
    live = steering.Steering(
        bundle, tokens=tokens, requests=requests, device=torch.device("cpu")
    )  # fmt: skip
    return live, Rows(live, read_catalog(bundle), replayed=replayed)


def request(ids, text=None):
    extra = {"valign": text} if text else None
    return SimpleNamespace(
        num_prompt_tokens=len(ids), sampling_params=SimpleNamespace(extra_args=extra)
    )


def step(rows, known, parts):
    """One engine step; parts: id -> (tokens computed before, tokens of this step)."""
    done, new = (np.array([part[k] for part in parts.values()]) for k in (0, 1))
    rows.step(known, list(parts), done, new)


def logits(served, live, ids, n=None):
    """Of the Hugging Face model with the op's state at every site, one request in one piece."""
    changes = [
        (site, lambda a, site=site: live.apply(a[0], None, str(site))[None]) for site in live.sites
    ]
    with torch.no_grad(), hooked(served.lm.layout, changes):
        return served.lm.model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("replayed", [False, True])
def test_every_profile_and_mix_moves_a_prompt_as_the_hooks_do(served, bundle, replayed):
    live, rows = made(bundle, replayed=replayed)
    asked = [(name, {name: 1.0}) for name in served.controls] + list(MIXES.items()) + [(None, {})]
    for number, (ids, (text, mix)) in enumerate(zip(some_prompts(len(asked)), asked, strict=True)):
        name = f"r{number}"
        step(rows, {name: request(ids, text)}, {name: (0, len(ids))})
        found = logits(served, live, ids)
        control, _ = mixed(served.lm, served.controls, mix, ids)
        row = torch.tensor([ids])
        with torch.no_grad():
            if control is None:
                wanted = served.lm.model(row).logits[0]
            else:
                with served.lm.controlled(control):
                    wanted = served.lm.model(row).logits[0]
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        if not mix:
            assert torch.equal(found, wanted)


def test_coefficients_follow_position_whatever_the_chunks(bundle):
    live, rows = made(bundle)
    add, whole = bundle.slot("add"), bundle.slot("whole")
    known = {"a": request(range(6), "add=2"), "b": request(range(3)),
             "c": request(range(4), "whole=1")}  # fmt: skip
    step(rows, known, {"a": (0, 4), "b": (0, 3), "c": (0, 4)})
    assert not live.coefficients["generation"][:, add].any()
    assert live.coefficients["all"][:, whole].tolist()[:12] == [0.0] * 7 + [1.0] * 4 + [0.0]
    step(rows, known, {"c": (4, 1), "a": (4, 2), "b": (3, 1)})  # other order: last prompt token
    assert live.coefficients["generation"][:5, add].tolist() == [0, 0, 2, 0, 0]
    assert live.coefficients["all"][:12, whole].tolist() == [1.0] + [0.0] * 11
    step(rows, known, {"a": (6, 1), "b": (4, 1)})
    assert live.coefficients["generation"][:3, add].tolist() == [2, 0, 0]
    before = live.coefficients["generation"].clone()
    step(rows, known, {"a": (7, 1), "b": (5, 1)})  # nothing to write
    assert torch.equal(before, live.coefficients["generation"])
    step(rows, known, {"a": (1, 1), "b": (6, 1)})  # begun again, one token at a time
    assert not live.coefficients["generation"].any()
    step(rows, known, {"b": (6, 1), "a": (8, 1)})
    assert live.coefficients["generation"][:3, add].tolist() == [0, 2, 0]
    step(rows, known, {"a": (0, 9)})  # after a preemption the answer is computed again
    assert live.coefficients["generation"][:10, add].tolist() == [0] * 5 + [2] * 4 + [0]
    step(rows, {"b": known["b"]}, {"b": (7, 1)})
    assert live.idle and not live.coefficients["generation"].any()


def test_a_gate_decides_once_and_is_remembered(served, bundle):
    """Over chunks, decoding, another request between, and a preemption; then it is forgotten."""
    live, rows = made(bundle)
    slot = bundle.slot("gated")
    prompts = some_prompts(12, seed=2, longest=30)
    for number, ids in enumerate(prompts):
        _, (opens,) = mixed(served.lm, served.controls, {"gated": 1.0}, ids)
        name, half = f"r{number}", len(ids) // 2
        known = {name: request(ids, "gated"), "plain": request([1])}
        step(rows, known, {name: (0, half)})
        logits(served, live, ids[:half])
        step(rows, known, {name: (0, len(ids))})
        logits(served, live, ids)
        at = len(ids) - 1
        assert live.coefficients["generation"][at, slot] == float(opens)
        for _ in range(2):
            step(rows, known, {"plain": (1, 1), name: (len(ids), 1)})
            logits(served, live, [5, 6])
            assert live.coefficients["generation"][:2, slot].tolist() == [0, float(opens)]
        step(rows, known, {name: (len(ids), 3)})  # the prompt came from the cache this time
        logits(served, live, [5, 6, 7])
        assert live.coefficients["generation"][:3, slot].tolist() == [float(opens)] * 3
    step(rows, {"plain": request([1])}, {"plain": (0, 1)})
    assert not rows._states and len(rows._free) == 8


def test_the_canary_finds_each_dead_bank(served, bundle):
    live, _ = made(bundle)
    ids = list(range(7, 15))

    def run(dead=None):
        changes = [
            (site, lambda a, site=site: live.apply(a[0], None, str(site))[None])
            for site in live.sites
            if str(site) != dead
        ]
        with torch.no_grad(), hooked(served.lm.layout, changes):
            return served.lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]

    before = [t.clone() for b in live.banks.values() for bank in b for t in bank.tensors.values()]
    canary.prove_live(live, run)
    after = [t for b in live.banks.values() for bank in b for t in bank.tensors.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(rows.any() for rows in live.coefficients.values())
    for site in live.banks:
        with pytest.raises(StartError, match=f"not live: the .* bank at {site} moves nothing"):
            canary.prove_live(live, lambda site=site: run(dead=site))


def test_two_engines_of_a_process_cannot_share_the_op(bundle, monkeypatch):
    class Runner:
        pass

    for name in ("_current", "_owner"):
        monkeypatch.setattr(steering, name, None)
    live, _ = made(bundle)
    first, second = Runner(), Runner()
    steering.make_current(live, first)
    with pytest.raises(StartError, match="Another engine"):
        steering.make_current(live, second)
    del first
    steering.make_current(live, second)
    hidden, residual = torch.randn(2, 5, 64)
    live.coefficients["all"][1, bundle.slot("whole")] = 1
    moved = torch.ops.valign.steer(hidden, residual, "resid:2")
    assert torch.equal(moved[[0, 2, 3, 4]], hidden[[0, 2, 3, 4]])
    assert not torch.equal(moved[1], hidden[1])
