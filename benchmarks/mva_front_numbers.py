"""The numbers of `mva_front.py`: hypervolumes, interference between adapters, costs."""

from __future__ import annotations

import numpy as np
from mva_front_plan import CORNERS, ENTRIES, PENALTIES, PLAN, TAXES, Entry, fronted

from valign.measure.bootstrap import Resampling, weighted_mean
from valign.measure.front import volume
from valign.study.front import mixture
from valign.world.preferences import SETS

Cells = dict[tuple[str, int], dict]
"""(source, seed) -> cell."""


def front_rows(cell: dict, entry: Entry) -> np.ndarray | None:
    """(prompts, points, k) of the mixtures that the search found for an entry."""
    mixes = [tuple(m) for m in cell["mixes"]]
    found = fronted(np.array(cell["searched"]), mixes, entry.allowed)
    names = [cell["names"][i] for i in found]
    if not names:
        return None
    return np.array([cell["judged"][n]["scores"] for n in names]).transpose(1, 0, 2)


def summarised(cells: Cells, k: int) -> dict:
    """Hypervolumes with intervals over prompts, means over seeds; differences from MVA paired."""
    draws = Resampling.of(PLAN.judged, seed=0, n_boot=1000 if k == 2 else 300)
    weights = np.vstack([np.ones((1, PLAN.judged)), draws.counts])
    volumes: dict[str, dict[int, np.ndarray]] = {}
    wide: dict[str, dict[int, np.ndarray]] = {}
    for label, entry in ENTRIES.items():
        for (source, seed), cell in cells.items():
            if source == entry.source:
                means = weighted_mean(weights, front_rows(cell, entry))
                for kept, corner in zip((volumes, wide), CORNERS, strict=True):
                    kept.setdefault(label, {})[seed] = np.array(
                        [volume(m, np.full(k, corner)) for m in means]
                    )
    return dict(
        cells=len(cells),
        hypervolume=compared(volumes),
        from_below=compared(wide),
        details=details(cells, k, weights),
        along_the_front=front_costs(cells, weights),
    )


def front_costs(cells: Cells, weights: np.ndarray) -> dict:
    """What an entry's answers cost along its front: means over its mixtures and seeds."""
    out: dict[str, dict] = {}
    for label, entry in ENTRIES.items():
        fronts = []
        for (source, _), cell in sorted(cells.items()):
            if source == entry.source:
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
    return out


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


def details(cells: Cells, k: int, weights: np.ndarray) -> dict:
    """Interference, dependence, taxes and costs by source."""
    values = SETS[k]
    found: dict = {}
    for source in ("dpo", *PENALTIES, "simpo", "sft", "mva-sft"):
        mine = [c for (s, _), c in sorted(cells.items()) if s == source]
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
    return found
