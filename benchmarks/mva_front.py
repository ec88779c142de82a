"""Fronts of mixtures on the reference model: MVA and what it competes with, from equal budgets.

    python benchmarks/mva_front.py --work runs/mva-front

writes `benchmarks/mva_front.json` and `.md` again after every cell. Interrupt it as you like: the
same command goes on; finished adapters and answers are not made again.

Every method may spend as many steps as there are values times STEPS (a training that two methods
share is made once). Those with an adapter a value search the same mixtures; those with one
adapter for a trade-off search its scale. Mixtures are found on search prompts and judged on others.
Recipe and prompts were set on the world's training half; nothing was chosen by judged answers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from valign.control.merging import dare, ties
from valign.control.weights import WeightsControl
from valign.lm import HostModel, generate
from valign.lm.mod import generate_together
from valign.measure.bootstrap import Resampling, weighted_mean
from valign.measure.front import front_of, volume
from valign.methods import get_method
from valign.study.front import FrontPlan, Scorer, adapters_digest, mean_scores, mixture
from valign.study.front_rows import FrontRows, Row
from valign.study.world import WorldBattery
from valign.values import Profile
from valign.world import reference_path
from valign.world.preferences import SETS, preference_corpus

HERE = Path(__file__).parent
STEPS, PAIRS = 32, 128
RECIPE = dict(steps=STEPS, batch_size=4, rank=8, alpha=16.0, rate=1.7e-3, save_every=16)
BETA = 0.4
"""Of DPO in all its forms. Rate, beta and steps: picked from six trials of plain DPO for one
value, read on training scenarios, as what moved the answers and left them fluent."""
PLAN = FrontPlan(search=12, judged=32, temperature=1.0, batch_size=128, max_new_tokens=80, seed=0)
NEUTRAL = 16
CORNERS = (0.0, -0.25)
"""Worst corners of the hypervolume, per value. From 0 a mixture counts only where it speaks for all
values; the second, added when the first plain adapters (of no method's own) were seen to push the
other value to nothing, also counts what lies on the axes."""
TAXES = ("fluent", "facts_kept", "facts_wrong")
LINE = (0.0, 0.5, 1.0, 1.5)

Mix = tuple[float, ...]


def mixtures(k: int) -> list[Mix]:
    """The candidates of k values: a grid, shares of one whole, and extrapolations."""
    if k == 2:
        return [*itertools.product(LINE, repeat=2), (0.25, 0.75), (0.75, 0.25)]
    grid = [*itertools.product((0.0, 0.5, 1.0), repeat=3)]
    far = [m for m in itertools.product((0.0, 0.5, 1.5), repeat=3) if 1.5 in m]
    return [*grid, *far, (1 / 3, 1 / 3, 1 / 3)]


def on_simplex(m: Mix) -> bool:
    return abs(sum(m) - 1) < 1e-6


def in_box(m: Mix) -> bool:
    return max(m) <= 1


@dataclass(frozen=True)
class Entry:
    """One row of the table: which answers it may use.

    Attributes:
        source: whose adapters; the name of a cell.
        allowed: which of its candidates.
    """

    source: str
    allowed: Callable[[Mix], bool] = lambda m: True


ENTRIES: dict[str, Entry] = {
    "MVA (hsic)": Entry("mva"),
    "MVA, w in [0, 1]": Entry("mva", in_box),
    "MVA, shares only": Entry("mva", on_simplex),
    "no penalty: task arithmetic on DPO": Entry("dpo"),
    "no penalty, w in [0, 1]": Entry("dpo", in_box),
    "rewarded soups": Entry("dpo", on_simplex),
    "MVA (hsic-released)": Entry("mva-released"),
    "MVA (orthogonal)": Entry("mva-orthogonal"),
    "MVA (cosine)": Entry("mva-cosine"),
    "MVA on positive sides (hsic; ours)": Entry("mva-sft"),
    "MVA on positive sides, w in [0, 1]": Entry("mva-sft", in_box),
    "sequential DPO": Entry("sequential"),
    "loss-weighted DPO": Entry("mixed"),
    "MODPO": Entry("modpo"),
    "TIES": Entry("ties"),
    "DARE": Entry("dare"),
    "MOD decoding": Entry("mod"),
    "SimPO, task arithmetic": Entry("simpo"),
    "SFT, task arithmetic": Entry("sft"),
    "SFT, w in [0, 1]": Entry("sft", in_box),
}
PENALTIES = {"mva": "hsic", "mva-released": "hsic-released", "mva-orthogonal": "orthogonal",
             "mva-cosine": "cosine"}  # fmt: skip
STAGES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("dpo", "mva"), 2),
    (("sequential", "mixed", "modpo"), 2),
    (("dpo", "mva"), 3),
    (("mva-orthogonal", "mva-released"), 2),
    (("ties", "dare"), 2),
    (("mod", "simpo", "sft", "mva-cosine"), 2),
    (("sequential", "mixed", "modpo"), 3),
    (("mva-sft",), 2),
    (("sft", "mva-sft"), 3),
)
"""What is made in which order: the main question first."""


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
            Row(name, ask.id, text, j.scores, j.fluent, j.facts, j.facts_kept, j.facts_wrong)
            for (name, ask), text, j in zip(part, made.texts, read, strict=True)
        )


def corners(k: int) -> list[Mix]:
    """Nothing, each value alone, all together: what interference is read from."""
    return [(0.0,) * k, *map(tuple, np.eye(k).tolist()), (1.0,) * k]


def fronted(points: np.ndarray, mixes: list[Mix], allowed: Callable[[Mix], bool]) -> list[int]:
    among = [i for i, m in enumerate(mixes) if allowed(m)]
    return [among[i] for i in front_of(points[among])] if among else []


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


# Numbers ------------------------------------------------------------------------------------


def front_rows(cell: dict, entry: Entry) -> np.ndarray | None:
    """(prompts, points, k) of the mixtures that the search found for an entry."""
    mixes = [tuple(m) for m in cell["mixes"]]
    found = fronted(np.array(cell["searched"]), mixes, entry.allowed)
    names = [cell["names"][i] for i in found]
    if not names:
        return None
    return np.array([cell["judged"][n]["scores"] for n in names]).transpose(1, 0, 2)


def summarise(cells: dict[tuple[str, int, int], dict]) -> dict:
    """Hypervolumes with intervals over prompts, means over seeds; differences from MVA paired."""
    out: dict = {}
    for k in (2, 3):
        draws = Resampling.of(PLAN.judged, seed=0, n_boot=1000 if k == 2 else 300)
        weights = np.vstack([np.ones((1, PLAN.judged)), draws.counts])
        volumes: dict[str, dict[int, np.ndarray]] = {}
        wide: dict[str, dict[int, np.ndarray]] = {}
        for label, entry in ENTRIES.items():
            for (source, size, seed), cell in cells.items():
                if source == entry.source and size == k:
                    rows = front_rows(cell, entry)
                    means = weighted_mean(weights, rows)
                    for kept, corner in zip((volumes, wide), CORNERS, strict=True):
                        kept.setdefault(label, {})[seed] = np.array(
                            [volume(m, np.full(k, corner)) for m in means]
                        )
        out[str(k)] = dict(hypervolume=compared(volumes), from_below=compared(wide),
                           **details(cells, k, weights),
                           **front_costs(cells, k, weights))  # fmt: skip
    return out


def front_costs(cells: dict, k: int, weights: np.ndarray) -> dict:
    """What an entry's answers cost along its front: means over its mixtures and seeds."""
    out: dict[str, dict] = {}
    for label, entry in ENTRIES.items():
        fronts = []
        for (source, size, _), cell in sorted(cells.items()):
            if source == entry.source and size == k:
                mixes = [tuple(m) for m in cell["mixes"]]
                found = fronted(np.array(cell["searched"]), mixes, entry.allowed)
                fronts.append([cell["judged"][cell["names"][i]] for i in found])
        fronts = [f for f in fronts if f]
        if fronts:
            out[label] = {
                tax: interval(weighted_mean(
                    weights, np.mean([np.mean([p[tax] for p in f], 0) for f in fronts], 0)
                ))
                for tax in TAXES
            }  # fmt: skip
    return dict(along_the_front=out)


def compared(volumes: dict[str, dict[int, np.ndarray]]) -> dict:
    """Means over seeds, and what MVA has more on the seeds that both have."""
    base, table = volumes.get("MVA (hsic)", {}), {}
    for label, each in volumes.items():
        row = dict(seeds=sorted(each), by_seed=[float(each[s][0]) for s in sorted(each)],
                   **interval(np.mean([each[s] for s in each], 0)))  # fmt: skip
        both = sorted(set(each) & set(base))
        if label != "MVA (hsic)" and both:
            row["mva_minus_this"] = interval(np.mean([base[s] - each[s] for s in both], 0))
        table[label] = row
    return table


def interval(replicates: np.ndarray) -> dict[str, float]:
    """Point and 95 % percentile interval; the first replicate is the data as they are."""
    low, high = np.quantile(replicates[1:], (0.025, 0.975))
    return dict(value=float(replicates[0]), low=float(low), high=float(high))


def details(cells: dict, k: int, weights: np.ndarray) -> dict:
    """Interference, dependence, taxes and costs by source."""
    values = SETS[k]
    found: dict = {}
    for source in ("dpo", *PENALTIES, "simpo", "sft", "mva-sft"):
        mine = [c for (s, size, _), c in sorted(cells.items()) if s == source and size == k]
        if not mine:
            continue
        full = mixture(values, (1.0,) * k)
        drop, alone = {}, {}
        for i, value in enumerate(values):
            single = mixture(values, [float(i == j) for j in range(k)])
            one = np.mean([[r[i] for r in c["judged"][single]["scores"]] for c in mine], 0)
            both = np.mean([[r[i] for r in c["judged"][full]["scores"]] for c in mine], 0)
            drop[value] = interval(weighted_mean(weights, both - one))
            alone[value] = interval(weighted_mean(weights, one))
        taxes = {
            name: interval(
                weighted_mean(weights, np.mean([c["judged"][full][name] for c in mine], 0))
            )
            for name in (*TAXES, "others")
        }
        pairs = [d for c in mine for d in c["dependence"].values()]
        calm = [c["neutral_unchanged"] for c in mine if c["neutral_unchanged"] is not None]
        found[source] = dict(
            seeds=len(mine), alone=alone, interference=drop, at_all_ones=taxes,
            dependence={m: float(np.mean([d[m] for d in pairs])) for m in pairs[0]},
            neutral_unchanged=float(np.mean(calm)) if calm else None,
            cpu_seconds_of_later_adapters=[
                t[v]["cpu_seconds"] for c in mine for t in c["training"] for v in list(t)[1:]
            ],
        )  # fmt: skip
    return dict(details=found)


def scoring_cost(bench: Bench, work: Path) -> dict:
    """One batched generation with a mixture a row, against one mixture after another."""
    path = work / "scoring.json"
    if path.is_file():
        return json.loads(path.read_text())
    (control,) = bench._fitted("dpo", SETS[2], 0)
    mixes = [control.with_weights(dict(zip(SETS[2], m, strict=True)))
             for m in mixtures(2) if any(m)][:16]  # fmt: skip
    prompts = [ask.prompt for ask in bench.asks[:8]]

    def timed(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    options = dict(max_new_tokens=40, temperature=1.0, seed=0)
    batched = timed(lambda: generate(
        bench.lm, prompts * len(mixes), [m for m in mixes for _ in prompts], batch_size=128,
        **options))  # fmt: skip
    apart = sum(timed(lambda m=m: generate(bench.lm, prompts, m, batch_size=128, **options))
                for m in mixes)  # fmt: skip
    found = dict(mixtures=len(mixes), prompts=len(prompts), batched=batched, one_by_one=apart)
    path.write_text(json.dumps(found))
    return found


# Page ---------------------------------------------------------------------------------------


def told(i: dict | None, digits: int = 3) -> str:
    return "" if i is None else (
        f"{i['value']:.{digits}f} [{i['low']:.{digits}f}, {i['high']:.{digits}f}]"
    )  # fmt: skip


def write(summary: dict, done: int, whole: int, seconds: float) -> None:
    record = dict(
        command="python benchmarks/mva_front.py --work runs/mva-front",
        recipe={**RECIPE, "beta": BETA},
        pairs=PAIRS,
        plan=vars(PLAN),
        cells_done=done,
        cells=whole,
        summary=summary,
    )
    (HERE / "mva_front.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    lines = [
        "# Fronts of mixtures on the reference model",
        "",
        "`python benchmarks/mva_front.py --work runs/mva-front`",
        "",
        f"{done} of {whole} cells are in these tables. Reference model in bfloat16; per adapter "
        f"{STEPS} steps of {RECIPE['batch_size']} pairs, rank {RECIPE['rank']}, rate "
        f"{RECIPE['rate']:g}, beta {BETA:g}; "
        f"{PLAN.search} search prompts, {PLAN.judged} judged prompts of "
        "held-out scenarios, sampled at temperature 1, read by the exact parser. Hypervolume: "
        "mean over seeds, 95 % intervals over prompts (they do not cover the "
        "choice of seeds; the figures by seed show that). Every method has the same number of "
        "training steps in all.",
    ]
    for k, block in summary.items():
        if not block["hypervolume"]:
            continue
        lines += ["", f"## {', '.join(SETS[int(k)])}", "",
                  "| method | seeds | hypervolume from 0 | by seed | MVA minus this | "
                  f"hypervolume from {CORNERS[1]:g} | by seed | MVA minus this | "
                  "along the front: fluent | facts kept | facts wrong |",
                  "| --- " * 11 + "|"]  # fmt: skip
        for label, row in block["hypervolume"].items():
            cells = [label, str(len(row["seeds"]))]
            for each in (row, block["from_below"][label]):
                by_seed = ", ".join(f"{v:.3f}" for v in each["by_seed"])
                cells += [told(each), by_seed, told(each.get("mva_minus_this"))]
            costs = block["along_the_front"][label]
            cells += [told(costs[tax], 2) for tax in TAXES]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", "Interference: the change of a value's score when the other adapters are "
                  "added, all at weight 1. Dependence: mean over modules and pairs.", "",
                  "| adapters | alone | interference | hsic | orthogonal | cosine | fluent | "
                  "facts kept | facts wrong | neutral unchanged | CPU s of a later adapter |",
                  "| --- " * 11 + "|"]  # fmt: skip
        for source, d in block["details"].items():
            alone = "; ".join(f"{v} {told(i, 2)}" for v, i in d["alone"].items())
            drop = "; ".join(f"{v} {told(i, 2)}" for v, i in d["interference"].items())
            dep, at = d["dependence"], d["at_all_ones"]
            calm = "" if d["neutral_unchanged"] is None else f"{d['neutral_unchanged']:.2f}"
            lines.append(
                f"| {source} | {alone} | {drop} | {dep['hsic']:.3f} | {dep['orthogonal']:.3f} | "
                f"{dep['cosine']:.3f} | {told(at['fluent'], 2)} | {told(at['facts_kept'], 2)} | "
                f"{told(at['facts_wrong'], 2)} | {calm} | "
                f"{np.median(d['cpu_seconds_of_later_adapters']):.1f} |"
            )  # fmt: skip
    if "scoring" in summary.get("cost", {}):
        c = summary["cost"]["scoring"]
        lines += ["", f"Scoring {c['mixtures']} mixtures on {c['prompts']} prompts: "
                  f"{c['batched']:.1f} CPU s as one generation with a mixture a row, "
                  f"{c['one_by_one']:.1f} CPU s one mixture after another."]  # fmt: skip
    (HERE / "mva_front.md").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/mva-front"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--summarise", action="store_true", help="Only write the tables again.")
    given = parser.parse_args()
    order = [(s, k, seed) for sources, k in STAGES for seed in given.seeds for s in sources]
    cells: dict[tuple[str, int, int], dict] = {}
    began = time.time()
    bench = None if given.summarise else Bench(given.work)
    for key in order:
        path = given.work / "cells" / "{}-{}-{}.json".format(*key)
        if bench is None:
            if path.is_file():
                cells[key] = json.loads(path.read_text())
            continue
        cells[key] = bench.cell(*key)
        print(f"{time.time() - began:7.0f} s  {key}", flush=True)
        write(finished(cells, given.work), len(cells), len(order), time.time() - began)
    if bench is not None:
        scoring_cost(bench, given.work)
    write(finished(cells, given.work), len(cells), len(order), time.time() - began)


def finished(cells: dict, work: Path) -> dict:
    found = summarise(cells)
    scoring = work / "scoring.json"
    if scoring.is_file():
        found["cost"] = dict(hypervolume={}, scoring=json.loads(scoring.read_text()))
    return found


if __name__ == "__main__":
    main()
