"""The cells of `mva_front.py`: adapters trained, mixtures searched, the found ones judged."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from mva_front_plan import (
    BETA,
    ENTRIES,
    LINE,
    NEUTRAL,
    PAIRS,
    PENALTIES,
    PLAN,
    RECIPE,
    Mix,
    corners,
    fronted,
    mixtures,
)  # fmt: skip

from valign.control.merging import dare, ties
from valign.control.weights import WeightsControl
from valign.lm import HostModel
from valign.lm.mod import generate_together
from valign.methods import get_method
from valign.study.front import Scorer, adapters_digest, mean_scores, mixture
from valign.study.front_rows import FrontRows, Row
from valign.study.world import WorldBattery
from valign.values import Profile
from valign.world import reference_path
from valign.world.preferences import SETS, preference_corpus


class Bench:
    """Model, prompts, and the cells made so far, under a folder."""

    def __init__(self, work: Path):
        self.work = work
        self.lm = HostModel.load(reference_path(), dtype=torch.bfloat16)
        self.lm.name = "reference"
        self.battery = WorldBattery()
        self.asks = self.battery.dilemmas(PLAN.seed, PLAN.search + PLAN.judged)
        self.neutral = self.battery.neutral(PLAN.seed, NEUTRAL)

    def cell(self, source: str, k: int, seed: int) -> dict:
        """Train, search, judge; what is finished is read."""
        path = self.work / "cells" / f"{source}-{k}-{seed}.json"
        if path.is_file():
            return json.loads(path.read_text())
        values = SETS[k]
        fitted = self._fitted(source, values, seed)
        named = self._candidates(source, k, fitted)
        rows = FrontRows(self.work / "rows" / f"{source}-{k}-{seed}.jsonl",
                         " ".join(adapters_digest(c) for c in fitted))  # fmt: skip
        scorer = (Together if source == "mod" else Scorer)(self.lm, self.battery, rows, PLAN)
        search, judged = self.asks[: PLAN.search], self.asks[PLAN.search :]
        found = scorer.score({n: c for n, (_, c) in named.items()}, search)
        points = np.stack([mean_scores(found[n], values) for n in named])
        mixes = [m for m, _ in named.values()]
        keep = {m for m in mixes if m in corners(k)}
        for entry in ENTRIES.values():
            if entry.source == source:
                keep |= {mixes[i] for i in fronted(points, mixes, entry.allowed)}
        chosen = {n: c for n, (m, c) in named.items() if m in keep}
        read = scorer.score(chosen, judged)
        calm = {}
        if source in ("dpo", "mva", "sft", "mva-sft"):
            full = next(n for n, (m, _) in named.items() if m == (1.0,) * k)
            calm = {n: [r.answer for r in scorer.score({n: c}, self.neutral)[n]]
                    for n, c in (("plain", None), (full, named[full][1]))}  # fmt: skip
        cell = dict(
            source=source, values=list(values), seed=seed,
            names=list(named), mixes=mixes, searched=points.tolist(),
            judged={n: compact(rows_, values) for n, rows_ in read.items()},
            neutral_unchanged=(
                float(np.mean([a == b for a, b in zip(*calm.values(), strict=True)]))
                if calm else None
            ),
            training=[c.provenance["training"] for c in fitted],
            dependence=fitted[0].provenance["dependence"],
        )  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(cell))
        partial.replace(path)
        return cell

    def _fitted(self, source: str, values: tuple[str, ...], seed: int) -> list[WeightsControl]:
        corpus = preference_corpus(values, seed=seed, n=PAIRS, prompts=1)
        equal = Profile.from_mapping(corpus.system, dict.fromkeys(values, 1.0))
        shared = dict(**RECIPE, seed=seed, checkpoint=self.work / "adapters" / str(seed))

        def fit(name: str, target: Profile = equal, **settings: object) -> WeightsControl:
            own = dict(beta=BETA) if name in ("dpo", "mva") else {}
            made = get_method(name, **{**shared, **own, **settings}).fit(self.lm, corpus, target)
            assert isinstance(made, WeightsControl)
            return made

        if source == "mva-sft":
            return [fit("mva", objective="sft")]
        if source in PENALTIES:
            return [fit("mva", penalty=PENALTIES[source])]
        if source in ("dpo", "ties", "dare", "mod"):
            return [fit("dpo")]
        if source in ("sft", "simpo"):
            return [fit(source)]
        if source == "sequential":
            return [fit("dpo", scheme="sequential")]
        if source == "modpo":
            return [fit("dpo", scheme="modpo")]
        tilted = [{v: 2.0 if v == w else 1.0 for v in values} for w in values]
        return [
            fit("dpo", Profile.from_mapping(corpus.system, {v: n / 2 for v, n in t.items()}),
                scheme="mixed")
            for t in tilted
        ]  # fmt: skip

    def _candidates(
        self, source: str, k: int, fitted: list[WeightsControl]
    ) -> dict[str, tuple[Mix, WeightsControl | None]]:
        """Name -> (mixture, control)."""
        values = SETS[k]
        if source in ("sequential", "mixed", "modpo"):
            return {
                f"{source}-{number} x {scale:g}": ((float(number), scale), c.scaled(scale))
                for number, c in enumerate(fitted)
                for scale in LINE[1:]
            }
        (control,) = fitted
        out: dict[str, tuple[Mix, WeightsControl | None]] = {}
        for m in mixtures(k):
            mixed = control.with_weights(dict(zip(values, m, strict=True)))
            if not any(m):
                out[mixture(values, m)] = (m, None)
            elif source == "ties":
                out[mixture(values, m)] = (m, ties(mixed))
            elif source == "dare":
                out[mixture(values, m)] = (m, dare(mixed))
            else:
                out[mixture(values, m)] = (m, mixed)
        if source in ("ties", "dare", "mod"):  # these cannot share batches: fewer of them
            few = [(0.5, 0.5), (1.0, 0.5), (0.5, 1.0), (1.0, 1.0), (1.5, 1.5)]
            out = {n: (m, c) for n, (m, c) in out.items() if m in few}
        return out


class Together(Scorer):
    """Scores MOD: the adapters alone are policies, the plain model has the rest of the share."""

    def _make(self, controls, part) -> None:  # type: ignore[no-untyped-def]
        whole = controls[part[0][0]]
        names = list(whole.weights)
        policies = [whole.with_weights({n: float(n == m) for n in names}) for m in names]
        shares = [[controls[n].weights[m] for m in names] for n, _ in part]
        made = generate_together(
            self._lm, [ask.prompt for _, ask in part], [*policies, None],
            [[*s, 1 - sum(s)] for s in shares], max_new_tokens=PLAN.max_new_tokens,
            temperature=PLAN.temperature, seed=PLAN.seed, batch_size=PLAN.batch_size,
        )  # fmt: skip
        read = self._battery.read([ask for _, ask in part], made.texts)
        self._rows.add(
            Row(name, ask.key, text, j.scores, j.fluent, j.facts, j.facts_kept, j.facts_wrong)
            for (name, ask), text, j in zip(part, made.texts, read, strict=True)
        )


def compact(rows: Iterable[Row], values: tuple[str, ...]) -> dict:
    rows = list(rows)
    return dict(
        scores=[[r.scores[v] for v in values] for r in rows],
        others=[float(np.mean([abs(s) for v, s in r.scores.items() if v not in values]))
                for r in rows],
        fluent=[float(bool(r.fluent)) for r in rows],
        facts_wrong=[float(r.facts_wrong or 0) for r in rows],
        facts_kept=[(r.facts_kept or 0) / (r.facts or 1) for r in rows],
    )  # fmt: skip
