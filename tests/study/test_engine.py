"""What decides a row, and what must not."""

import json
from typing import ClassVar

import pytest
import torch

from tests.lm.tiny import WORDS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import Edit, EditsControl, Site
from valign.detect.wordlist import WordListDetector
from valign.methods import registry
from valign.methods.base import Method
from valign.study.battery import TextBattery
from valign.study.collect import collect
from valign.study.engine import Bench, identity
from valign.study.folder import FolderError, RunFolder
from valign.study.plan import MethodChoice, Plan
from valign.values import Profile

TARGETS = tuple(Profile.parse(name, SYSTEM) for name in ("benevolence", "power"))
SMALL = dict(targets=TARGETS, doses=(0.05,), prompts=6, neutral=3, dose_prompts=6, max_new_tokens=6)


class Still(Method):
    """Adds nothing."""

    name: ClassVar[str] = "still"
    has_strength: ClassVar[bool] = False

    def _fit(self, lm, corpus, target):
        nothing = Edit(site=Site("resid", 1), kind="add", tensors=dict(vector=torch.zeros(32)))
        return EditsControl(target=target, edits=(nothing,))


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def battery():
    lists = {value: WORDS[i::10] for i, value in enumerate(SYSTEM.names)}
    return TextBattery(toy_corpus(pairs=8), WordListDetector(lists, SYSTEM))


@pytest.fixture
def run(lm, battery, tmp_path, monkeypatch):
    """Run methods into a folder; returns the bench."""
    monkeypatch.setitem(registry.BUILTIN, "still", f"{__name__}:Still")

    def made(*methods, into="run", progress=None, **settings):
        plan = Plan(methods=tuple(map(MethodChoice, methods)), **{**SMALL, **settings})
        folder = RunFolder(tmp_path / into, identity(plan, lm, battery))
        bench = Bench(lm, plan, battery, folder, progress=progress)
        bench.run()
        return bench

    return made


def answers(bench, **only):
    return {
        row.key: row.answer
        for row in bench.folder.rows()
        if all(getattr(row, name) == wanted for name, wanted in only.items())
    }


def beside(bench, method, reading="ungated"):
    """(answer of the unsteered model, answer under the method) to each prompt and target."""
    plain = {r.prompt_id: r.answer for r in bench.folder.rows()
             if (r.method, r.target, r.reading) == ("none", "", reading)}  # fmt: skip
    return [(plain[r.prompt_id], r.answer) for r in bench.folder.rows()
            if r.method == method and r.target and r.reading == reading]  # fmt: skip


def test_batch_size_changes_no_answer(run):
    found = [
        answers(run("prompt", "caa", into=f"b{size}", batch_size=size, temperature=1.0))
        for size in (1, 5, 32)
    ]
    assert found[0] == found[1] == found[2] and len(set(found[0].values())) > 5


def test_the_same_seed_gives_the_same_rows_and_another_seed_others(run):
    one, same, other = (
        run("caa", into=into, temperature=1.0, seeds=(seed,))
        for into, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert answers(one) == answers(same)
    assert list(answers(one).values()) != list(answers(other).values())


def test_none_as_a_method_differs_from_the_baseline_by_sampling_only(run):
    greedy = beside(run("none", into="greedy"), "none")
    assert greedy and all(a == b for a, b in greedy)
    sampled = beside(run("none", into="sampled", temperature=1.0), "none")
    assert len(sampled) == 12 and sum(a != b for a, b in sampled) > 6


def test_a_control_that_does_nothing_changes_nothing_even_under_sampling(run):
    bench = run("still", temperature=1.0)
    for reading in ("ungated", "neutral"):
        pairs = beside(bench, "still", reading)
        assert pairs and all(a == b for a, b in pairs)


def test_a_resumed_run_equals_a_fresh_one_wherever_it_stopped(run, tmp_path):
    whole = run("prompt", "caa", into="whole", temperature=1.0)
    lines = whole.folder.rows_file.read_bytes().splitlines(keepends=True)
    for cut in (3, 20, len(lines)):
        part = run("prompt", "caa", into=f"part{cut}", temperature=1.0)
        part.folder.rows_file.write_bytes(b"".join(lines[:cut]) + b'{"ru')
        resumed = run("prompt", "caa", into=f"part{cut}", temperature=1.0)
        assert answers(resumed) == answers(whole)
        assert len(resumed.folder.rows()) == len(lines)


def test_neutral_questions_are_answered_greedily_whatever_the_temperature(run):
    cold, warm = run("none", into="cold"), run("none", into="warm", temperature=1.5)
    assert answers(cold, reading="neutral") == answers(warm, reading="neutral")


def test_controls_are_fitted_before_any_answer(run):
    steps = []
    run("prompt", "caa", progress=lambda what, done, total: steps.append((what, done, total)))
    fits = [k for k, (what, _, _) in enumerate(steps) if what.startswith("fitting")]
    assert len(fits) == 4 and fits == list(range(4))
    assert steps[-1][1] == steps[-1][2] == (6 + 3) * (1 + 2 * 2)


def test_the_log_probability_is_the_unsteered_models(run, lm, battery):
    from valign.lm import generate, token_logprobs

    bench = run("still")
    row = next(r for r in bench.folder.rows() if r.method == "still")
    said = generate(lm, [row.prompt], max_new_tokens=6)
    (logp,) = token_logprobs(lm, [row.prompt], said.token_ids)
    assert row.nll == pytest.approx(-float(logp.sum()), rel=1e-4) and row.tokens == len(logp)


def test_a_run_is_not_continued_with_a_judge_that_was_trained_anew(lm, tmp_path):
    class Trained(WordListDetector):
        fingerprint = "0123"

    detector = Trained({value: WORDS[i::10] for i, value in enumerate(SYSTEM.names)}, SYSTEM)
    plan = Plan(methods=(MethodChoice("none"),), **SMALL)
    before = TextBattery(toy_corpus(pairs=8), detector)
    bench = Bench(lm, plan, before, RunFolder(tmp_path, identity(plan, lm, before)))
    bench.run()
    results = collect(bench, command="test", explain=False)
    assert results.detectors.judge_fingerprint == "0123"
    RunFolder(tmp_path, identity(plan, lm, before))
    detector.fingerprint = "4567"
    after = TextBattery(toy_corpus(pairs=8), detector)
    with pytest.raises(FolderError, match="another run: judge_fingerprint differ"):
        RunFolder(tmp_path, identity(plan, lm, after))


def test_a_run_begun_before_judges_had_fingerprints_is_continued(lm, battery, tmp_path):
    plan = Plan(methods=(MethodChoice("none"),), **SMALL)
    begun = identity(plan, lm, battery)
    assert begun.pop("judge_fingerprint") is None
    RunFolder(tmp_path, begun)
    assert RunFolder(tmp_path, identity(plan, lm, battery)).rows() == []


def test_results_carry_doses_receipts_and_intervals(run):
    results = collect(run("none", "random", "prompt", "caa"), command="test")
    assert [b.method for b in results.blocks] == ["none", "random", "prompt", "caa"]
    assert [b.kind for b in results.blocks] == ["none", "edits", "text", "edits"]
    for block in results.blocks:
        assert block.summary.gain.low <= block.summary.gain.value <= block.summary.gain.high
        for target in block.targets:
            assert target.receipt.requests == 6
            if block.method != "none":
                assert target.dose.p95.value > 0
    assert json.loads(results.to_json())["settings"]["prompts_per_seed"] == 6


def test_an_arm_is_timed_once_and_against_the_unsteered_model(run):
    bench = run("still")
    found = collect(bench, command="test").blocks[0].cost
    assert found.relative_time.low <= found.relative_time.value <= found.relative_time.high
    assert found.relative_time.n == 5 and found.peak_memory_mib > 1
    rounds = bench.spent("still", None)["rounds"]
    assert run("still").spent("still", None)["rounds"] == rounds, "timed again on resuming"
