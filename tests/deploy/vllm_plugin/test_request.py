"""What requests may ask for; no vLLM needed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from valign.control import Site
from valign.deploy.vllm_plugin.cache_key import block_key
from valign.deploy.vllm_plugin.request import LARGEST, PLAIN, Catalog, Entry, Mix, RequestError


def entry(name: str, slot: int, values: dict, **changes) -> Entry:
    given = dict(
        dose=0.2, kinds=frozenset({"add"}), first=Site("resid", 2),
        scopes=frozenset({"generation"}), gate=None, instruction=None,
    )  # fmt: skip
    return Entry(name=name, slot=slot, values=values, **{**given, **changes})


CATALOG = Catalog(
    "f" * 64,
    {
        e.name: e
        for e in (
            entry("warm", 0, {"benevolence": 1.0}),
            entry("power-up", 1, {"power": 1.0}, kinds=frozenset({"push"})),
            entry("power-down", 2, {"power": -1.0}, dose=0.8),
            entry("both", 3, {"benevolence": 1.0, "power": -1.0}, dose=None),
            entry("words", 4, {"security": 1.0}, kinds=frozenset(), first=None,
                  instruction="Be safe."),
            entry("gated", 5, {"tradition": 1.0}, gate=Site("resid", 2)),
            entry("late-gate", 6, {"achievement": 1.0}, gate=Site("resid", 3)),
            entry("wide-gate", 7, {"universalism": 1.0}, gate=Site("resid", 1),
                  scopes=frozenset({"all"})),
            entry("early", 8, {"hedonism": 1.0}, first=Site("neurons", 2),
                  scopes=frozenset({"all"})),
            entry("push", 9, {"stimulation": 1.0}, kinds=frozenset({"add", "push"})),
        )
    },
)  # fmt: skip


def mix(text, **more):
    return CATALOG.mix({"valign": text, **more}).coefficients


def test_profiles_and_values_by_name():
    assert mix("warm=0.5") == mix(" warm = +0.5 ") == ((0, 0.5),)
    assert mix("warm") == ((0, 1.0),)
    assert mix("benevolence=0.8,power=0.5") == ((0, 0.8), (1, 0.5))
    assert mix({"warm": 0.5, "both": -1}) == ((0, 0.5), (3, -1.0))
    assert mix("warm=0") == ()


def test_the_opposite_of_a_value_is_its_own_profile_or_the_negative_of_an_addition():
    assert mix("power=-0.5") == ((2, 0.5),)
    assert mix("benevolence=-0.5") == ((0, -0.5),)
    with pytest.raises(RequestError, match=r"cannot be turned around.*push"):
        mix("power-up=-0.5")
    with pytest.raises(RequestError, match="cannot be turned around"):
        mix("stimulation=-1")


def test_plain_requests_cost_nothing():
    assert CATALOG.mix(None) is CATALOG.mix({}) is CATALOG.mix({"other": 1}) is PLAIN


def test_a_dose_sets_the_strength_by_its_square_root():
    assert mix("warm=1", valign_dose=0.05) == ((0, pytest.approx(0.5)),)
    assert mix("warm=1,power=-1", valign_dose="0.2") == ((0, 1.0), (2, pytest.approx(0.5)))
    with pytest.raises(RequestError, match="without a calibrated dose"):
        mix("both=1", valign_dose=0.1)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"valign": "warmth=1"}, "Did you mean 'warm'.*power-up.*vllm_xargs"),
        ({"valign": "warm=much"}, "needs a number, got 'much'.*warm=0.8"),
        ({"valign": "warm=nan"}, "needs a number"),
        ({"valign": "warm=1e999"}, "needs a number"),
        ({"valign": "warm=1_0"}, "needs a number"),
        ({"valign": f"warm={LARGEST + 1}"}, "at most 4"),
        ({"valign": "warm=1,benevolence=1"}, "Name one of them|named twice"),
        ({"valign": "warm=1,warm=1"}, "named twice"),
        ({"valign": ""}, "is empty"),
        ({"valign": "warm=1,"}, "names no profile before ''"),
        ({"valign": "=1"}, "names no profile"),
        ({"valign": 3}, "takes text such as.*int"),
        ({"valign": ["warm"]}, "takes text"),
        ({"valign": {"warm": None}}, "needs a number"),
        ({"valign_dose": 0.1}, "needs a profile"),
        ({"valign": "warm=1", "valign_dose": -1}, "from 0 on"),
        ({"valign": "warm=1", "valign_dose": [1]}, "number of nats"),
        ({"valign": "warm=1", "valign_dose": True}, "number of nats"),
        ({"valign": "warm=1", "valign_dose": 1e9}, "at most 4"),
        ({"valign_profile": "warm"}, "Unknown argument 'valign_profile'"),
        ({"valign": "words=1"}, "system message.*Be safe"),
        ({"valign": "gated=1,early=1"}, "gate of 'gated' reads resid:2.*separate requests"),
        ({"valign": "late-gate=1"}, "its own edit at resid:2"),
        ({"valign": "wide-gate=1"}, "whole prompt"),
    ],
)
def test_what_cannot_be_applied_is_refused_with_what_to_type(extra, says):
    with pytest.raises(RequestError, match=says) as error:
        CATALOG.mix(extra)
    assert len(str(error.value)) < 500


def test_a_gate_at_the_first_edit_reads_before_it():
    assert mix("gated=1,power=-1") == ((2, 1.0), (5, 1.0))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
_TEXT = st.lists(
    st.tuples(
        st.sampled_from([*CATALOG.entries, "power", "benevolence", ""]) | st.text(max_size=8),
        st.sampled_from(["", "="]),
        st.floats().map(str) | st.text(max_size=8),
    ).map("".join),
    max_size=4,
).map(",".join)


@given(st.dictionaries(st.sampled_from(["valign", "valign_dose", "x"]), _JSON | _TEXT))
def test_anything_is_a_mix_or_a_request_error(extra):
    try:
        found = CATALOG.mix(extra)
    except RequestError:
        return
    assert all(math.isfinite(c) and 0 < abs(c) <= LARGEST for _, c in found.coefficients)
    assert CATALOG.mix(extra) == found


def test_blocks_are_shared_as_far_as_they_are_plain():
    whole, answer = Mix(((0, 1.0),), "k", prompt=True), Mix(((0, 1.0),), "k", answer=True)
    both = Mix(((0, 1.0),), "k", prompt=True, answer=True)
    assert block_key(PLAIN, 20, 64) is None
    assert [block_key(whole, 20, end) for end in (16, 32)] == ["k", "k"]
    # The last prompt token, the first one edited, stands at 19.
    assert [block_key(answer, 20, end) for end in (19, 20, 32)] == [None, "k@20", "k@20"]
    assert [block_key(both, 20, end) for end in (16, 32)] == ["k", "k@20"]


def test_the_square_root_is_about_right_below_the_calibrated_dose():
    from tests.deploy.cases import control, edit
    from tests.lm.tiny import PROMPTS, tiny_lm
    from valign.lm import DoseMeter

    lm = tiny_lm()
    meter = DoseMeter(lm, PROMPTS, max_new_tokens=8)
    set_to = meter.set(control(edit(lm, "add", "resid:1", scope="generation")), 0.2)
    calibrated = set_to.provenance["dose"]["p95"]
    for asked in (0.05, 0.1):
        found = meter.measure(set_to.scaled((asked / calibrated) ** 0.5)).p95
        assert found == pytest.approx(asked, rel=0.35), asked
