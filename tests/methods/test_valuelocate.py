"""ValueLocate against counting one token after the other."""

import math

import pytest
import torch

from tests.lm.reference import part
from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import Site
from valign.lm import generate
from valign.methods import get_method
from valign.values import Profile

CORPUS = toy_corpus()
TOWARD, AWAY = Profile.of(SYSTEM, security=0.5), Profile.of(SYSTEM, security=-0.5)


def tokens_of(lm, texts):
    """{layer: [neurons (64,) of every token of every text]}, one text at a time."""
    found = {layer: [] for layer in range(3)}
    for prompt, text in texts:
        head = lm.encode_prompt(prompt)
        ids = head + lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        seen = {}
        handles = [
            part(lm, "llama", Site("neurons", layer)).register_forward_pre_hook(
                lambda m, a, layer=layer, seen=seen: seen.update({layer: a[0][0]})
            )
            for layer in found
        ]
        with torch.no_grad():
            lm.model(torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        for layer, a in seen.items():
            found[layer].extend(a[len(head) :])
    return found


def slowly(lm, *, least, gap):
    """[(d, layer, j, c)] of N+ and of N-, best first."""
    pairs = CORPUS.pairs_of("security")
    up = tokens_of(lm, [(p.prompt, p.positive) for p in pairs])
    down = tokens_of(lm, [(p.prompt, p.negative) for p in pairs])
    ranked = []
    for this, other in ((up, down), (down, up)):
        rows = []
        for layer in this:
            for j in range(64):
                values = [float(a[j]) for a in this[layer]]
                fired = [v for v in values if v > 0]
                there = sum(float(a[j]) > 0 for a in other[layer]) / len(other[layer])
                mean = sum(fired) / len(fired) if fired else 0.0
                rows.append((len(fired) / len(values) - there, layer, j, mean))
        rows.sort(reverse=True)
        count = max(least, sum(row[0] >= gap for row in rows))
        ranked.append([row for row in rows[:count] if row[0] > 0])
    return ranked


@pytest.mark.parametrize("gap", [0.1, 0.2])
def test_firing_shifts_and_clamps_are_those_of_counting(gap):
    lm = tiny_lm()
    control = get_method("valuelocate", gap=gap).fit(lm, CORPUS, TOWARD)
    more, less = slowly(lm, least=1, gap=gap)
    expected = torch.zeros(3, 64)
    for d, layer, j, amount in more:
        expected[layer, j] = 0.5 * amount / (1 + math.exp(-10 * (d - 0.15)))
    found, clamped = torch.zeros(3, 64), set()
    for edit in control.edits:
        if edit.kind == "add":
            found[edit.site.layer] = edit.tensors["vector"]
        else:
            assert edit.strength == 0.5 and not edit.tensors["high"].any()
            clamped |= {(edit.site.layer, j) for j in edit.tensors["index"].tolist()}
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert clamped == {(layer, j) for _, layer, j, _ in less}


def chosen(control):
    up = {(e.site, int(j)) for e in control.edits if e.kind == "add"
          for j in torch.nonzero(e.tensors["vector"])}  # fmt: skip
    down = {(e.site, int(j)) for e in control.edits if e.kind == "clamp"
            for j in e.tensors["index"]}  # fmt: skip
    return up, down


def test_away_swaps_what_is_excited_and_what_is_quietened():
    lm = tiny_lm()
    toward = chosen(get_method("valuelocate").fit(lm, CORPUS, TOWARD))
    away = chosen(get_method("valuelocate").fit(lm, CORPUS, AWAY))
    assert toward == away[::-1]
    assert not toward[0] & toward[1]
    alone = chosen(get_method("valuelocate", quieten=False).fit(lm, CORPUS, TOWARD))
    assert alone == (toward[0], set())


def test_random_neurons_are_as_many_in_every_layer_with_the_same_shifts():
    lm = tiny_lm()
    value, drawn, again, other = (
        get_method("valuelocate", **settings).fit(lm, CORPUS, TOWARD)
        for settings in (dict(), dict(neurons="random"), dict(neurons="random"),
                         dict(neurons="random", seed=1))
    )  # fmt: skip
    for a, b in zip(value.edits, drawn.edits, strict=True):
        assert (a.site, a.kind, a.strength) == (b.site, b.kind, b.strength)
        if a.kind == "add":
            x, y = (e.tensors["vector"] for e in (a, b))
            torch.testing.assert_close(x.sort().values, y.sort().values)
        else:
            assert a.tensors["index"].shape == b.tensors["index"].shape
    assert chosen(drawn) == chosen(again)
    assert chosen(drawn) != chosen(value) and chosen(drawn) != chosen(other)
    up, down = chosen(drawn)
    assert not up & down


def test_a_larger_share_takes_more_than_the_gap_does():
    lm = tiny_lm()
    few = get_method("valuelocate", gap=1.0, share=2 / 192).fit(lm, CORPUS, TOWARD)
    assert few.provenance["neurons"] == {"security": dict(excited=2, quietened=2)}


def test_clamped_neurons_stay_below_zero_in_the_forward_pass():
    lm = tiny_lm()
    control = get_method("valuelocate", gap=0.05).fit(lm, CORPUS, Profile.of(SYSTEM, security=1))
    index = {e.site: e.tensors["index"] for e in control.edits if e.kind == "clamp"}
    seen = []
    with lm.controlled(control):
        for site, rows in index.items():
            part(lm, "llama", site).register_forward_pre_hook(
                lambda m, a, rows=rows: seen.append(a[0][:, -1, rows])
            )
        lm.model(torch.tensor([lm.encode_prompt(PROMPTS[0])]))
    assert seen and all((a <= 1e-6).all() for a in seen)
    assert generate(tiny_lm(), PROMPTS, control, max_new_tokens=2).receipts[0].size > 0
