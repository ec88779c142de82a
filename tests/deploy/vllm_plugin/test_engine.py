"""vLLM's real engine on a CPU: every row does what the hooked model does alone."""

from __future__ import annotations

import importlib.util

import pytest

from tests.deploy.vllm_plugin.conftest import Served
from tests.deploy.vllm_plugin.profiles import (
    MIXES,
    alone,
    mixed,
    save_model,
    some_prompts,
    write_bundle,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
]

TOKENS = 20
EAGER = dict(enforce_eager=True, max_num_seqs=32, max_num_batched_tokens=64,
             num_gpu_blocks_override=36, kv_cache_memory_bytes=2**26)  # fmt: skip
"""Prompts come in chunks, and the cache holds about half of the batch: requests are preempted."""

COMPILED = dict(max_num_seqs=32, max_num_batched_tokens=256, kv_cache_memory_bytes=2**26)


def batch(served) -> list[dict]:
    """32 requests: all 16 profiles alone, 6 mixes, 10 plain, in no order."""
    mixes = [{name: 1.0} for name in served.controls] + list(MIXES.values()) + [{}] * 10
    texts = [*served.controls, *MIXES] + [None] * 10
    order = [(7 * i) % 32 for i in range(32)]
    return [
        {"ids": ids, "mix": mixes[k], "valign": texts[k], "tokens": TOKENS}
        for k, ids in zip(order, some_prompts(32), strict=True)
    ]


def expected(served, requests: list[dict]) -> list[list[int]]:
    return [
        alone(served.lm, served.controls, r["mix"], r["ids"], r["tokens"]) for r in requests
    ]  # fmt: skip


@pytest.fixture(scope="module")
def reference(served) -> list[list[int]]:
    return expected(served, batch(served))


def shared_prefix(served) -> list[list[dict]]:
    """Batches of one, each on blocks that the ones before left in the cache."""
    ids = (some_prompts(1, seed=5, longest=6)[0] * 30)[:96]
    answer = alone(served.lm, served.controls, {"add": 1.0}, ids, 36)
    steps = [
        (ids, {}, 8), (ids, {"early": 1.0}, 8), (ids, {"add": 1.0}, 36), (ids + answer, {}, 8),
        (ids + answer, {"add": 1.0}, 8), (ids, {"early": 0.5}, 8), (ids, {}, 8),
    ]  # fmt: skip
    return [
        [{"ids": i, "mix": m, "tokens": n,
          "valign": ",".join(f"{k}={v}" for k, v in m.items()) or None}]
        for i, m, n in steps
    ]  # fmt: skip


@pytest.fixture(scope="module")
def eager(served, run_engine) -> dict:
    """One engine for all that needs no compiler."""
    cached = shared_prefix(served)
    talk = [
        {"messages": [{"role": "user", "content": "rest or work ?"}], "valign": v, "tokens": TOKENS}
        for v in ("push", None, "early=0.5,add=-0.7")
    ]
    phases = [{"requests": batch(served)}, {"requests": talk, "before": "reset"}]
    phases += [{"requests": r, "before": "reset" if not n else None} for n, r in enumerate(cached)]
    phases += [
        {"requests": r, "before": "forget-key" if not n else None} for n, r in enumerate(cached)
    ]
    return run_engine(model=served.model, bundle=served.bundle, options=EAGER, phases=phases)


def tokens(phase: list[dict]) -> list[list[int]]:
    return [row["tokens"] for row in phase]


def test_the_batch_would_show_a_mistake(served, reference):
    """The profiles move the text, both gates open for some prompts and close for others."""
    rows = batch(served)
    plain = expected(served, [{**r, "mix": {}} for r in rows])
    moved = [r["valign"] for r, a, b in zip(rows, reference, plain, strict=True) if a != b]
    assert len(moved) >= 18, moved
    for name in ("gated", "gated-push"):
        said = {mixed(served.lm, served.controls, {name: 1.0}, r["ids"])[1][0] for r in rows}
        assert said == {True, False}, name


def test_eager_chunked_and_preempted_rows_equal_the_hooked_model(eager, reference):
    assert eager["preempted"] > 0
    assert tokens(eager["phases"][0]) == reference


def test_chat_goes_the_same_way(served, eager):
    ids = served.lm.encode_prompt([{"role": "user", "content": "rest or work ?"}])
    mixes = [{"push": 1.0}, {}, MIXES["early=0.5,add=-0.7"]]
    wanted = [alone(served.lm, served.controls, m, ids, TOKENS) for m in mixes]
    assert tokens(eager["phases"][1]) == wanted


def test_cached_blocks_serve_only_those_they_belong_to(served, eager):
    batches = shared_prefix(served)
    found = eager["phases"][2 : 2 + len(batches)]
    wanted = [expected(served, r) for r in batches]
    assert [tokens(phase) for phase in found] == wanted
    cached = [phase[0]["cached"] for phase in found]
    # Blocks hold 32 tokens, the prompt 96; its last token is computed anew in any case.
    assert cached[0] == 0
    assert cached[1] == 0  # edits the prompt: shares nothing with the plain request
    assert cached[2] == 64  # edits from the last prompt token on: shares the blocks before it
    assert cached[3] == 96  # not the block of the answer, which was steered
    assert cached[4] == 128  # here the answer is prompt: shares what was just computed plain
    assert cached[5] == 0
    assert cached[6] == 64


def test_without_the_key_the_cache_mixes_requests_up(served, eager):
    """Negative control: the same requests, with the steering taken out of the block hash."""
    batches = shared_prefix(served)
    found = [tokens(phase) for phase in eager["phases"][2 + len(batches) :]]
    wanted = [expected(served, r) for r in batches]
    wrong = [n for n, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b]
    assert wrong, "the cache key is not needed, or the test does not see it"


def test_compiled_rows_equal_the_hooked_model_and_plain_ones_the_stock_engine(
    served, run_engine, reference
):
    """The stock engine compiles first, into the cache the steered one finds."""
    rows = batch(served)
    phases = [{"requests": rows}, {"requests": rows}]
    plain = [{"requests": [{**r, "valign": None} for r in rows]}]
    stock = run_engine(model=served.model, bundle=None, absent=True, options=COMPILED, phases=plain)
    steered = run_engine(model=served.model, bundle=served.bundle, options=COMPILED, phases=phases)
    assert tokens(steered["phases"][0]) == reference
    assert tokens(steered["phases"][1]) == reference  # now from the prefix cache
    assert max(row["cached"] for row in steered["phases"][1]) > 0
    pairs = zip(rows, steered["phases"][0], stock["phases"][0], strict=True)
    unsteered = [(a, b) for r, a, b in pairs if not r["valign"]]
    assert len(unsteered) == 10
    for a, b in unsteered:
        assert a["tokens"] == b["tokens"] and a["logprobs"] == b["logprobs"]


@pytest.mark.parametrize("family", ["qwen2", "mistral"])
def test_other_families_equal_the_hooked_model(family, tmp_path, run_engine):
    lm = save_model(tmp_path / "model", family)
    served = Served(lm, tmp_path / "model", tmp_path / "b", write_bundle(lm, tmp_path / "b"))
    rows = [r for r in batch(served) if r["valign"]]
    options = {**EAGER, "max_num_batched_tokens": 128}
    done = run_engine(
        model=served.model, bundle=served.bundle, options=options, phases=[{"requests": rows}]
    )
    assert tokens(done["phases"][0]) == expected(served, rows)
