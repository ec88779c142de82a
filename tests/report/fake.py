"""Plausible results without a model: simulated answers, real measuring functions."""

from __future__ import annotations

import numpy as np

from valign.measure import Estimate, Estimates, Paired, Resampling, control_matrix, leakage
from valign.measure.bootstrap import mean
from valign.measure.leakage import RELATIONS
from valign.study.results import (
    Block,
    CorpusInfo,
    Cost,
    DetectorInfo,
    Dose,
    DoseCurve,
    DosePoint,
    Measured,
    Metrics,
    ModelInfo,
    Receipt,
    Results,
    Row,
    Sample,
    SystemInfo,
    TargetResult,
)
from valign.values import ValueSystem, load_system

EFFECT = {"none": 0.0, "random": 0.0, "prompt": 0.7, "caa": 0.45, "conva": 0.35, "neva": 0.5}
SPILL = {"none": 0.0, "random": 0.0, "prompt": 0.1, "caa": 0.25, "conva": 0.15, "neva": 0.08}
KIND = {"none": "none", "prompt": "text"}
ROLE = {"none": "baseline", "random": "baseline", "prompt": "ceiling"}


def fake_results(
    *,
    methods: tuple[str, ...] = tuple(EFFECT),
    doses: tuple[float, ...] = (0.05, 0.1, 0.3),
    targets: tuple[str, ...] | None = None,
    system: ValueSystem | None = None,
    n_prompts: int = 120,
    answer: str = "I would call her tonight and offer to watch the children.",
    seed: int = 0,
) -> Results:
    """Results of methods x doses x targets; `answer` is every steered sample's text."""
    system = system or load_system("schwartz10")
    names = targets or system.names
    rng = np.random.default_rng(seed)
    draws = Resampling.of(n_prompts, seed=seed, n_boot=200)
    base = _answers(rng, np.full(len(system), 0.16), n_prompts)
    blocks = []
    for method in methods:
        undosed = method in KIND
        for dose in (None,) if undosed else doses:
            blocks.append(_block(method, dose, base, names, system, draws, rng))
    curves = [
        DoseCurve(
            method=method,
            points=[
                DosePoint(asked=b.dose, p95=around(b.dose, 0.03), metrics=b.summary)
                for b in blocks
                if b.method == method and b.dose is not None
            ],
        )
        for method in methods
        if method not in KIND and len(doses) > 1
    ]
    shown = [b.label for b in blocks if b.dose in (None, sorted(doses)[(len(doses) - 1) // 2])]
    samples = [
        Sample(
            prompt_id=f"d-{k:03d}",
            prompt="My sister asks for help on the day of my exam. Should I go?",
            target=f"{name}=+1",
            answers={label: "Finish the exam first." if label == "none" else answer
                     for label in shown},
            scores={label: {name: 0.0 if label == "none" else 0.9} for label in shown},
        )
        for k, name in enumerate(names)
    ]  # fmt: skip
    return Results(
        run_id="fake-0",
        command="valign run --model reference --method neva --toward benevolence",
        versions={"valign": "0.1.0", "python": "3.11", "torch": "2.13.0"},
        settings={"max_new_tokens": 64, "temperature": 0.0},
        model=ModelInfo(name="reference", fingerprint="0123abcd", parameters=12_345_678,
                        dtype="float32", device="cpu"),
        system=SystemInfo.of(system),
        detectors=DetectorInfo(judge="parser-1", tune="lexicon-1"),
        seeds=[seed],
        corpus=CorpusInfo(name="world", fingerprint="89ef0123"),
        prompts=f"{n_prompts} held-out dilemmas",
        blocks=blocks,
        curves=curves,
        samples=samples,
        notes=["Simulated answers; no model was run."],
    )  # fmt: skip


def fake_rows(answer: str = "Go.") -> list[Row]:
    """A few rows of two methods on two prompts."""
    return [
        Row(run="fake-0", method=method, target=target, dose=dose, prompt_id=f"d-{k}",
            prompt=f"Question {k}?", answer=answer, scores={"benevolence": 0.5}, tokens=3)
        for k in range(4)
        for method, target, dose in (("none", "", None), ("neva", "benevolence=+1", 0.1))
    ]  # fmt: skip


def around(value: float, spread: float, n: int = 120) -> Measured:
    """A number with a made-up interval."""
    return Measured(value=value, low=value * (1 - spread), high=value * (1 + spread), n=n)


def _answers(rng: np.random.Generator, rates: np.ndarray, n: int) -> np.ndarray:
    return (rng.random((n, rates.shape[-1])) < np.clip(rates, 0, 1)).astype(float)


def _block(method, dose, base, names, system, draws, rng) -> Block:
    n = len(base)
    push = EFFECT[method] * (1.0 if dose is None else min(1.4, (dose / 0.1) ** 0.45))
    spill = SPILL[method] * (1.0 if dose is None else (dose / 0.1) ** 0.7)
    profiles = np.eye(len(system))[[system.index(name) for name in names]]
    steered = []
    for name in names:
        rates = np.full(len(system), 0.16)
        for j, other in enumerate(system.names):
            relation = system.relation(name, other)
            rates[j] += {"self": push, "in-group": spill, "opposite": -spill / 2}.get(relation, 0)
        steered.append(base if method == "none" else _answers(rng, rates, n))
    paired = Paired.of(base, np.stack(steered), targets=profiles)
    found, leaked = control_matrix(paired, draws), leakage(paired, system, draws)
    loss = 0.0 if dose is None else 0.25 * dose
    facts = mean((rng.random(n) < 0.8 - loss).astype(float), draws).at()
    fluent = mean((rng.random(n) < 0.99 - loss / 2).astype(float), draws).at()

    def metrics(k: int | None) -> Metrics:
        def cell(e: Estimates, *more: int) -> Estimate:
            return e.at(k, *more)

        common = dict(facts_kept=facts, fluency=fluent, perplexity=around(6.2 + 8 * loss, 0.04),
                      neutral_unchanged=around(0.96 - loss, 0.03), gate_open=None)  # fmt: skip
        if k is None:
            return Metrics(gain=found.mean_gain.at(), leakage=leaked.summary_mean.at(),
                           nlr=leaked.summary_nlr.at(), **common)  # fmt: skip
        split = dict(zip(RELATIONS, range(3), strict=True))
        return Metrics(
            gain=cell(found.gain), leakage=cell(leaked.mean), leakage_raw=cell(leaked.mean_raw),
            nlr=cell(leaked.nlr), nlr_raw=cell(leaked.nlr_raw),
            nglr_in_group=cell(leaked.nglr, split["in-group"]),
            nglr_adjacent=cell(leaked.nglr, split["adjacent"]),
            nglr_opposite=cell(leaked.nglr, split["opposite"]),
            in_group_share=cell(leaked.in_group_share), headroom_leakage=cell(leaked.headroom),
            **common,
        )  # fmt: skip

    return Block(
        method=method,
        kind=KIND.get(method, "edits"),
        role=ROLE.get(method, "method"),
        dose=dose,
        targets=[
            TargetResult(
                target=f"{name}=+1",
                dose=None if dose is None else Dose(
                    asked=dose, p95=around(dose, 0.03), mean=around(dose / 4, 0.05), strength=1.7),
                no_control=bool(leaked.no_control[k]),
                metrics=metrics(k),
                receipt=None if method == "none" else Receipt(
                    sites=["resid:3", "resid:4"], tokens=5000, tokens_touched=4980,
                    mean_size=around(0.31, 0.1), requests=120, gate_opened=118),
            )
            for k, name in enumerate(names)
        ],
        summary=metrics(None),
        c0=found.c0.tolist(),
        c=[[found.c.at(i, j) for j in range(len(system))] for i in range(len(names))],
        shift=[[found.shift.at(i, j) for j in range(len(system))] for i in range(len(names))],
        group_leakage=[
            [leaked.group_matrix.at(a, b) for b in range(len(system.groups))]
            for a in range(len(system.groups))
        ],
        cost=Cost(seconds=12.5, tokens=60_000,
                  relative_time=around(1.02, 0.01), fit_seconds=3.2, peak_memory_mib=412),
    )  # fmt: skip
