"""Adapters through vLLM's LoRA, beside profiles: every row does what the merged model does."""

from __future__ import annotations

import importlib.util

import pytest

from tests.deploy.vllm_plugin.profiles import alone, some_prompts
from tests.lm.adapters import adapter, merged, mixture
from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS
from valign.control import WeightsControl
from valign.deploy import export

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not importlib.util.find_spec("vllm"), reason="vLLM is not installed"),
]

TOKENS = 20
OPTIONS = dict(enforce_eager=True, max_num_seqs=32, max_num_batched_tokens=64,
               kv_cache_memory_bytes=2**26, enable_lora=True, max_lora_rank=8)  # fmt: skip
MIXES = ({}, {"add": 1.0}, {"clip": 0.6, "add": 0.2}, {"push-neurons": 1.0}, {"gated": 0.8},
         {"early": 0.5, "whole": -0.4})  # fmt: skip


@pytest.fixture(scope="module")
def adapters(served) -> dict[str, WeightsControl]:
    """Name -> control: ranks 1 to 3 side by side, and one that changes attention alone."""
    lm = served.lm
    return {
        "mixture": mixture(lm, a=0.4, b=-0.3, c=1.5),
        "attention": WeightsControl(
            target=TARGET, adapters=(adapter(lm, "x", seed=9, rank=1, only="self_attn"),),
            weights={"x": 1.2},
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(served, adapters, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("adapters")
    for name, control in adapters.items():
        export(served.lm, control, to="peft", out=folder / name, prompts=PROMPTS[:2], tokens=4)
    return {name: str(folder / name) for name in adapters}


def batch() -> list[dict]:
    """Every mix under no adapter and under each, in no order."""
    rows = [(worn, mix) for worn in (None, "mixture", "attention") for mix in MIXES]
    rows = [rows[(7 * i) % len(rows)] for i in range(len(rows))]
    return [
        {"ids": ids, "adapter": worn, "mix": mix, "tokens": TOKENS,
         "valign": ",".join(f"{k}={v}" for k, v in mix.items()) or None}
        for (worn, mix), ids in zip(rows, some_prompts(len(rows), seed=2), strict=True)
    ]  # fmt: skip


def shared_prefix() -> list[list[dict]]:
    """Batches of one over the same 96 tokens, each on the blocks that those before left."""
    ids = (some_prompts(1, seed=5, longest=6)[0] * 30)[:96]
    steps = [(None, {}), ("mixture", {}), ("attention", {}), ("mixture", {"add": 1.0}),
             ("mixture", {"early": 1.0}), (None, {"early": 1.0}), ("mixture", {}),
             ("mixture", {"early": 1.0})]  # fmt: skip
    return [
        [{"ids": ids, "adapter": worn, "mix": mix, "tokens": 8,
          "valign": ",".join(f"{k}={v}" for k, v in mix.items()) or None}]
        for worn, mix in steps
    ]  # fmt: skip


@pytest.fixture(scope="module")
def expected(served, adapters):
    """Greedy tokens of the hooked model whose weights hold the adapter, one row alone."""
    models = {None: served.lm} | {n: merged(served.lm, c) for n, c in adapters.items()}

    def of(requests: list[dict]) -> list[list[int]]:
        return [
            alone(models[r["adapter"]], served.controls, r["mix"], r["ids"], r["tokens"])
            for r in requests
        ]

    return of


@pytest.fixture(scope="module")
def done(served, folders, run_engine) -> dict:
    """One engine: the batch, the batch again from the cache, the shared prefix."""
    phases = [{"requests": batch()}, {"requests": batch()}]
    phases += [{"requests": r, "before": None if n else "reset"}
               for n, r in enumerate(shared_prefix())]  # fmt: skip
    options = {**OPTIONS, "max_loras": len(folders) + 1}
    return run_engine(
        model=served.model, bundle=served.bundle, options=options, adapters=folders, phases=phases
    )


def tokens(phase: list[dict]) -> list[list[int]]:
    return [row["tokens"] for row in phase]


def test_adapters_profiles_both_and_plain_rows_in_one_batch(done, expected):
    wanted = expected(batch())
    assert tokens(done["phases"][0]) == wanted
    assert tokens(done["phases"][1]) == wanted
    assert max(row["cached"] for row in done["phases"][1]) > 0


def test_the_batch_would_show_a_mistake(expected):
    """Adapters and profiles move the text, each on top of the other."""
    rows = batch()
    wanted = expected(rows)
    for taken in ("adapter", "mix"):
        less = expected([{**r, taken: None if taken == "adapter" else {}} for r in rows])
        moved = [r for r, a, b in zip(rows, wanted, less, strict=True) if r[taken] and a != b]
        assert len(moved) >= 9, taken


def test_cached_blocks_serve_only_those_they_belong_to(done, expected):
    steps = shared_prefix()
    found = done["phases"][2:]
    assert [tokens(phase) for phase in found] == [expected(r) for r in steps]
    cached = [phase[0]["cached"] for phase in found]
    # Blocks hold 32 tokens, the prompt 96; its last token is computed anew in any case.
    assert cached[:3] == [0, 0, 0]  # plain and each adapter share nothing
    assert cached[3] == 64  # edits from the last prompt token on: the adapter's own blocks
    assert cached[4] == 0  # an edit of the prompt under the adapter
    assert cached[5] == 0  # the same edit without it
    assert cached[6] == 64 and cached[7] == 64
