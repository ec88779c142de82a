"""Comparisons of folders: paired, corrected, and told in words."""

import numpy as np
import pytest

from valign.study.compare import CompareError, Side, compare
from valign.study.results import Row
from valign.values import load_system

VALUES = load_system("schwartz10").names
TARGETS = ("benevolence=+1", "power=+1")


def side(rates, *, name="m", n=40, seeds=(0,), dose=0.5, stream=0, method="caa", prompts=None,
         leaks=(), wrong=None):  # fmt: skip
    """Answers of one method; `rates`: how often the target shows. The plain model is the same.

    `leaks`: other values that always show. `wrong`: of two facts mentioned; None mentions none.
    """
    rng = np.random.default_rng(stream)
    rows = []
    for seed in seeds:
        plain = np.random.default_rng(seed)
        for k in range(n):
            base = {v: float(plain.random() < 0.15) for v in VALUES}
            common = dict(run="r", seed=seed, prompt_id=f"d{seed}-{k}",
                          prompt=prompts or f"Question {k}?")  # fmt: skip
            rows.append(Row(method="none", answer="plain", scores=base, fluent=True, nll=8.0,
                            tokens=4, **common))  # fmt: skip
            for target in TARGETS:
                value = target.partition("=")[0]
                scores = {**base, value: max(base[value], float(rng.random() < rates))}
                scores |= dict.fromkeys(set(leaks) - {value}, 1.0)
                facts = dict(facts_kept=0 if wrong is None else 2 - wrong, facts_wrong=wrong or 0)
                rows.append(
                    Row(method=method, target=target, dose=dose, answer="steered", scores=scores,
                        fluent=bool(rng.random() < 0.9), nll=9.0, tokens=4, **facts, **common)
                )  # fmt: skip
    found = {}
    for row in rows:
        key = (row.reading, row.method, row.target, row.dose)
        found.setdefault(key, {})[row.seed, row.prompt_id] = row
    return Side(name, VALUES, 0.5, found)


def by(found, metric, target=""):
    (one,) = [c for c in found if c.metric == metric and c.target == target and not c.value]
    return one


def test_a_difference_is_found_where_it_is_and_said():
    found = compare([side(0.2, stream=1)], [side(0.9, stream=2)])
    for target in (*TARGETS, ""):
        one = by(found, "gain", target)
        assert one.verdict == "higher" and one.low < one.difference < one.high
        assert one.difference == pytest.approx(one.b - one.a)
    said = by(found, "gain", TARGETS[0]).sentence
    assert said.startswith("caa @ 0.5, benevolence=+1: gain is higher in B by +")
    assert "better" in said and "40 prompts" in said and "Holm p < 0.001" in said
    calm = by(found, "fluency", TARGETS[0])
    assert calm.verdict == "not shown" and "no difference in fluent answers shown" in calm.sentence


def test_the_gain_is_that_of_the_shared_prompts():
    a, b = side(0.3, stream=1, n=30), side(0.3, stream=2, n=40)
    one = by(compare([a], [b]), "gain", TARGETS[0])
    assert one.n == 30

    def gain(side):
        steered = side.answers["ungated", "caa", TARGETS[0], 0.5]
        plain = side.answers["ungated", "none", "", None]
        units = [(0, f"d0-{k}") for k in range(30)]
        moved = [steered[u].scores["benevolence"] - plain[u].scores["benevolence"] for u in units]
        return np.mean(moved)

    assert (one.a, one.b) == pytest.approx((gain(a), gain(b)))


def test_the_same_folder_twice_differs_in_nothing():
    found = compare([side(0.5)], [side(0.5)])
    assert found and all(c.p == 1 and c.difference == 0 for c in found)
    assert {c.verdict for c in found} == {"not shown"}


def test_two_methods_of_one_folder():
    weak, strong = side(0.1, method="caa", stream=1), side(0.9, method="neva", stream=2)
    both = Side("m", VALUES, 0.5, {**weak.answers, **strong.answers})
    found = compare([both], [both], method_a="caa", method_b="neva")
    one = by(found, "gain", TARGETS[1])
    assert one.verdict == "higher" and "caa @ 0.5 (A) and neva @ 0.5 (B)" in one.sentence


def test_leakage_is_compared_whichever_side_leaks_nothing():
    clean, leaky = side(0.5), side(0.5, leaks=("security", "tradition"))
    up, down = compare([clean], [leaky]), compare([leaky], [clean])
    assert len(up) == len(down) == len(compare([clean], [clean]))
    for target in (*TARGETS, ""):
        more, less = by(up, "leakage_raw", target), by(down, "leakage_raw", target)
        assert (more.verdict, less.verdict) == ("higher", "lower")
        assert more.a == less.b == 0 and more.p == less.p
        assert more.difference == pytest.approx(-less.difference)


def test_a_ratio_is_compared_where_both_sides_have_its_denominator():
    silent, right, wrong = side(0.5), side(0.5, wrong=0), side(0.5, wrong=2)
    for a, b in ((silent, right), (right, silent), (silent, silent)):
        assert "facts_wrong" not in {c.metric for c in compare([a], [b])}
    assert by(compare([right], [wrong]), "facts_wrong").verdict == "higher"
    assert by(compare([wrong], [right]), "facts_wrong").verdict == "lower"


def test_a_target_of_every_value_has_nothing_to_leak_into():
    given, everything = side(0.5), ",".join(f"{v}=+1" for v in VALUES)
    moved = {key: rows for key, rows in given.answers.items() if key[2] != TARGETS[1]}
    moved["ungated", "caa", everything, 0.5] = moved.pop(("ungated", "caa", TARGETS[0], 0.5))
    one = Side("m", VALUES, 0.5, moved)
    assert "leakage_raw" not in {c.metric for c in compare([one], [one])}


def test_plain_models_that_differ_are_compared_value_by_value():
    a, b = side(0.5), side(0.5, name="tuned")
    plain = b.answers["ungated", "none", "", None]
    for unit, row in plain.items():
        plain[unit] = row.model_copy(update={"answer": "other", "scores": {"power": 1.0}})
    found = [c for c in compare([a], [b]) if c.metric == "presence"]
    assert [c.value for c in found] == list(VALUES)
    power = found[VALUES.index("power")]
    assert power.verdict == "higher" and power.b == 1
    assert power.sentence.startswith("unsteered model: power, presence is higher in B")


def test_correction_is_over_all_comparisons_of_a_call():
    found = compare([side(0.2, stream=1)], [side(0.35, stream=2)])
    smallest = min(found, key=lambda c: c.p)
    assert smallest.p_holm == pytest.approx(min(1, smallest.p * len(found)))


def test_what_cannot_be_compared_is_refused_and_says_why():
    with pytest.raises(CompareError, match=r"A: caa @ 0.5. B: caa @ 0.1"):
        compare([side(0.5)], [side(0.5, dose=0.1)])
    with pytest.raises(CompareError, match="No answers of 'neva'; there are: caa"):
        compare([side(0.5)], [side(0.5)], method_b="neva")
    with pytest.raises(CompareError, match="share no prompts"):
        compare([side(0.5)], [side(0.5, prompts="Another question?")])
    with pytest.raises(CompareError, match="No model stands on both sides: m, n and o"):
        compare([side(0.5), side(0.5, name="n")], [side(0.5, name="o")])


def test_no_difference_is_rarely_called_one():
    """Whole calls on two draws of the same process: any false finding in at most 5 %."""
    runs, false = 40, 0
    for k in range(runs):
        a, b = side(0.4, stream=2 * k, n=30), side(0.4, stream=2 * k + 1, n=30)
        false += any(c.verdict != "not shown" for c in compare([a], [b], n_draws=800, seed=k))
    assert false <= 6  # 40 times 5 % is 2; more than 6 has a chance of 0.3 %
