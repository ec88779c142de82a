"""SVGT on the reference model: harm, ablations, context, overhead, long answers.

    OMP_NUM_THREADS=1 python benchmarks/svgt.py overhead
    OMP_NUM_THREADS=1 python benchmarks/svgt.py harm
    OMP_NUM_THREADS=1 python benchmarks/svgt.py context
    OMP_NUM_THREADS=1 python benchmarks/svgt.py long

Its values stand beside the other methods' in the study `svgt_values.yaml`. Each part writes its
figures into `svgt.json` beside this file. Shares and likelihoods come with 95 % bootstrap intervals
over prompts and seeds. Methods are fitted on the world's training scenarios and judged on held-out
ones. Doses of edits are set on dilemmas of the fitting corpus; what is trained (bridges, adapters)
acts as trained and its dose is written beside the figures. `--only NAME` measures one row of `harm`
and leaves the others as they are.
Overhead is CPU time, alternated with plain generation in one process.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from speed import ANSWER, PROMPT, make_lm

from valign.control import BridgeControl, Control
from valign.corpora.types import Corpus
from valign.lm import DoseMeter, HostModel, generate, token_kl, token_logprobs
from valign.lm.bridge import BridgeSession
from valign.lm.bridge_module import LatentBridge, ValueModule
from valign.lm.score import answer_distributions, pad_right
from valign.methods import get_method
from valign.methods.svgt.curve import score_curves
from valign.methods.svgt.data import Example, read_states
from valign.methods.svgt.harm import world_harm
from valign.methods.svgt.value import final_scores
from valign.values import Profile, load_system
from valign.world import World, WorldJudge, reference_path

HERE = Path(__file__).parent
HARMLESS = Profile.of(load_system("hh"), harmless=1)
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt": ("prompt", {}),
    "caa": ("caa", {}),
    "iti": ("iti", {}),
    "re-control": ("re-control", {}),
    "dpo, LoRA": ("dpo", {}),
    "svgt": ("svgt", {}),
    "svgt inject": ("svgt", {"mode": "inject"}),
    "svgt r=1": ("svgt", {"refresh": 1}),
    "svgt r=2": ("svgt", {"refresh": 2}),
    "svgt r=10": ("svgt", {"refresh": 10}),
    "svgt static": ("svgt", {"refresh": 0}),
}


def interval(rows: Sequence[float], draws: int = 2000) -> dict[str, float]:
    """Mean with its 95 % bootstrap interval over rows."""
    x = np.asarray(rows, dtype=float)
    rng = np.random.default_rng(0)
    means = x[rng.integers(0, len(x), (draws, len(x)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return dict(value=float(x.mean()), low=float(low), high=float(high), n=len(x))


def dosed(lm: HostModel, control: Control, corpus: Corpus, dose: float) -> Control:
    """At the dose; instructions have none, and what is trained acts as trained."""
    if control.kind in ("text", "bridge", "weights"):
        return control
    return _meter(lm, corpus).set(control, dose)


def _meter(lm: HostModel, corpus: Corpus) -> DoseMeter:
    return DoseMeter(lm, [d.text for d in corpus.dilemmas[:24]])


def harm(
    lm: HostModel, *, seeds: int, prompts: int, dose: float, only: str | None
) -> dict[str, Any]:
    """Harm share, over-refusal and the likelihood of benign answers, per method."""
    judge, world = WorldJudge(), World(split="heldout")
    found: dict[str, dict[str, list[float]]] = {}
    accuracy: dict[str, list[Any]] = {}
    doses: dict[str, list[float]] = {}
    for seed in range(seeds):
        corpus = world_harm(seed)
        asked = {
            "harmful": world.harmful(prompts, seed=seed),
            "benign": world.benign_lookalikes(prompts, seed=seed),
        }
        arms: dict[str, Control | None] = {} if only else {"none": None}
        for label, (name, settings) in METHODS.items():
            if only not in (None, label):
                continue
            fitted = get_method(name, **settings).fit(lm, corpus, HARMLESS)
            arms[label] = dosed(lm, fitted, corpus, dose)
            doses.setdefault(label, []).append(_meter(lm, corpus).measure(arms[label]).p95)
            if "balanced_accuracy" in fitted.provenance:
                accuracy.setdefault(label, []).append(fitted.provenance["balanced_accuracy"])
        for label, control in arms.items():
            rows = found.setdefault(label, {k: [] for k in ("harm", "refused", "nll")})
            for kind, items in asked.items():
                said = generate(lm, [i.messages for i in items], control, max_new_tokens=96).texts
                readings = judge.read_all(items, said)
                if kind == "harmful":
                    rows["harm"] += [float(r.complied) for r in readings]
                else:
                    rows["refused"] += [float(r.careful or not r.complied) for r in readings]
            logp = token_logprobs(
                lm, [i.messages for i in asked["benign"]], [i.answer for i in asked["benign"]],
                control,
            )  # fmt: skip
            rows["nll"] += [float(-x.mean()) for x in logp]
    table = {k: {name: interval(x) for name, x in rows.items()} for k, rows in found.items()}
    return dict(
        table=table, accuracy=accuracy, dose=dose, doses=doses, seeds=seeds, prompts=prompts
    )


def context(lm: HostModel, *, seeds: int, prompts: int, layers: Sequence[int]) -> dict[str, Any]:
    """Both encoders on answers that only their prompt makes harmful, of unseen wordings.

    The world's steps are the same behind a harmful request and behind its harmless twin. Read at
    several blocks, and once more by the response path from a host that never saw the prompt: there
    nothing but the answer's own words is left.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        corpus, other = world_harm(seed), world_harm(seed, requests=prompts, split="heldout")
        scores = ("harmless",)
        helped = [Example(p.prompt, p.negative, (0.0,), (1.0,)) for p in other.pairs]
        helped += [Example(a.prompt, a.text, (1.0,), (1.0,)) for a in other.answers]
        for layer in layers:
            module, _ = get_method("svgt", layer=layer, seed=seed).value_module(
                lm, corpus, scores, layer
            )
            states = read_states(lm, helped, layer)
            bare = read_states(lm, [replace(e, prompt=None) for e in helped], layer)
            rows = found.setdefault(f"block {layer}", {})
            for label, read, conditional in (
                ("unconditional", states, False),
                ("conditional", states, True),
                ("unconditional, host without the prompt", bare, False),
            ):
                said = final_scores(module, read, conditional=conditional)[:, 0] > 0
                right = said == (states.labels[:, 0] > 0.5)
                rows.setdefault(label, []).extend(right.float().tolist())
    return dict(
        right={at: {k: interval(x) for k, x in rows.items()} for at, rows in found.items()},
        seeds=seeds, prompts=prompts,
    )  # fmt: skip


def random_bridge(lm: HostModel, *, layer: int, size: int = 128, **options: Any) -> BridgeControl:
    """A bridge that always guides; what it says does not matter for its cost."""
    torch.manual_seed(0)
    value = ValueModule(width=lm.layout.width, size=size, scores=1, heads=4)
    bridge = LatentBridge(width=lm.layout.width, size=size, tokens=5)
    tensors = {f"value.{k}": t for k, t in value.state_dict().items()}
    tensors |= {f"bridge.{k}": t for k, t in bridge.state_dict().items()}
    return BridgeControl(
        target=HARMLESS, layer=layer, tensors=tensors, scores=("harmless",),
        goals={"harmless": 50.0}, **options,
    )  # fmt: skip


def overhead(*, rounds: int, tokens: int) -> dict[str, Any]:
    """CPU time of guided over plain generation, on the reference model and a random 49M Llama."""
    rows = {}
    for name, lm in (("reference", HostModel.load(reference_path())), ("llama-49M", make_lm())):
        layer = round(0.65 * lm.n_layers)
        arms = {
            "r=5": random_bridge(lm, layer=layer),
            "r=1": random_bridge(lm, layer=layer, refresh=1),
            "static": random_bridge(lm, layer=layer, refresh=0),
            "inject r=5": random_bridge(lm, layer=layer, mode="inject"),
        }
        word = " ".join(["w7"] * PROMPT) if name != "reference" else "What should I do, Vera? " * 3
        for batch in (1, 8, 32):
            prompts = [word] * batch

            def once(control: Control | None, lm: Any = lm, prompts: Any = prompts) -> float:
                began = time.process_time()
                generate(lm, prompts, control, max_new_tokens=tokens)
                return time.process_time() - began

            stop, lm.__dict__["stop_ids"] = lm.stop_ids, frozenset()  # all arms make every token
            ratios: dict[str, list[float]] = {arm: [] for arm in arms}
            once(None)
            for _ in range(rounds):
                for arm, control in arms.items():
                    before, guided, after = once(None), once(control), once(None)
                    ratios[arm].append(2 * guided / (before + after))
            lm.__dict__["stop_ids"] = stop
            rows[f"{name}, batch {batch}"] = {
                arm: dict(median=statistics.median(x), rounds=len(x)) for arm, x in ratios.items()
            }
            print(name, batch, {a: round(statistics.median(x), 3) for a, x in ratios.items()})
        parameters = sum(p.numel() for p in lm.model.parameters())
        extra = sum(t.numel() for t in arms["r=5"].tensors.values())
        rows[f"{name}, memory"] = dict(weights=1 + extra / parameters)
    return dict(rows=rows, tokens=tokens, prompt=PROMPT, answer=ANSWER)


def long(lm: HostModel, *, prompts: int, tokens: int, bin: int = 80) -> dict[str, Any]:
    """Guidance along long answers: free ones, and harmful ones that are put into its mouth.

    The reference model ends its answers after some twenty tokens and, made to go on, says nothing
    that reads as harm. So the question whether guidance fades is put to forced answers of `tokens`
    tokens, one harmful step after another: is the bridge still open late in them, and does it
    still move the model as it did early?
    """
    control = get_method("svgt").fit(lm, world_harm(0), HARMLESS)
    assert isinstance(control, BridgeControl)
    asked = [i.messages for i in World(split="heldout").harmful(prompts)]
    free = score_curves(lm, asked, control, max_new_tokens=48)
    steps = [p.negative for p in world_harm(0, requests=4 * prompts, split="heldout").pairs]
    answers = []
    for number in range(prompts):
        text = " ".join(steps[(number + 7 * k) % len(steps)] for k in range(len(steps)))
        answers.append(lm.tokenizer(text, add_special_tokens=False).input_ids[:tokens])
    assert all(len(ids) == tokens for ids in answers), "too few steps for such long answers"
    plain = answer_distributions(lm, asked, answers, batch_size=8)
    moved = torch.stack(token_kl(lm, asked, answers, control, plain, batch_size=8))
    rows = [lm.encode_prompt(prompt) for prompt in asked]
    ids, mask = pad_right([p + a for p, a in zip(rows, answers, strict=True)], lm)
    with (
        torch.no_grad(),
        BridgeSession(lm, [control] * prompts, prompt_lengths=[len(p) for p in rows]) as session,
    ):
        lm.model(input_ids=ids, attention_mask=mask, use_cache=False)
        told = [receipt.guidance for receipt in session.receipts()]
    every = max(control.refresh, 1)

    def binned(series: torch.Tensor, width: int) -> list[dict[str, float]]:
        return [interval(part.mean(1).tolist()) for part in series.split(width, dim=1)]

    count = tokens // every
    return dict(
        free={arm: {k: v.tolist() for k, v in curve.items()} for arm, curve in free.items()},
        forced=dict(
            bin=bin,
            moved=binned(moved, bin),
            score=binned(torch.tensor([g.before for g in told])[:, :count, 0], bin // every),
            open=binned(torch.tensor([g.open for g in told])[:, :count], bin // every),
        ),
        prompts=prompts,
        tokens=tokens,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("part", choices=["harm", "context", "overhead", "long"])
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--prompts", type=int, default=60)
    options.add_argument("--dose", type=float, default=0.5)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--tokens", type=int, default=None)
    options.add_argument("--only", choices=METHODS)
    options.add_argument("--out", type=Path, default=HERE / "svgt.json")
    asked = options.parse_args()
    torch.set_num_threads(1)
    if asked.part == "overhead":
        made = overhead(rounds=asked.rounds, tokens=asked.tokens or 64)
    else:
        lm = HostModel.load(reference_path())
        sizes = dict(prompts=asked.prompts, dose=asked.dose)
        if asked.part == "context":
            layers = (0, 1, 2, round(0.4 * lm.n_layers))
            made = context(lm, seeds=asked.seeds, prompts=asked.prompts, layers=layers)
        elif asked.part == "long":
            made = long(lm, tokens=asked.tokens or 640, prompts=asked.prompts)
        else:
            made = harm(lm, seeds=asked.seeds, only=asked.only, **sizes)
        made["model"] = lm.fingerprint
    made["versions"] = dict(torch=torch.__version__, python=platform.python_version())
    kept = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    if asked.only:
        before = kept[asked.part]
        sizes = [(m["seeds"], m["prompts"], m["model"]) for m in (before, made)]
        if sizes[0] != sizes[1]:
            options.error(f"--only {asked.only}: measured on {sizes[1]}, the others on {sizes[0]}.")
        made = {k: {**x, **made[k]} if isinstance(x, dict) else x for k, x in before.items()}
    asked.out.write_text(json.dumps({**kept, asked.part: made}, indent=1) + "\n")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
