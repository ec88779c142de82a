"""`mva_front.json` and `mva_front.md`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mva_front_plan import BETA, CORNERS, PAIRS, PLAN, RECIPE, STAGES, STEPS, TAXES

from valign.world.preferences import SETS

RECORD = Path(__file__).parent / "mva_front.json"
COMMAND = "python benchmarks/mva_front.py --work runs/mva-front"


def told(i: dict | None, digits: int = 3) -> str:
    return "" if i is None else (
        f"{i['value']:.{digits}f} [{i['low']:.{digits}f}, {i['high']:.{digits}f}]"
    )  # fmt: skip


def record(blocks: dict[str, dict]) -> dict:
    """`mva_front.json`; a block for each number of values."""
    return dict(
        command=COMMAND,
        recipe={**RECIPE, "beta": BETA},
        pairs=PAIRS,
        plan=vars(PLAN),
        blocks=blocks,
    )


def page(blocks: dict[str, dict]) -> str:
    """`mva_front.md`."""
    done = sum(block["cells"] for block in blocks.values())
    whole = 3 * sum(len(sources) for sources, _ in STAGES)
    lines = [
        "# Fronts of mixtures on the reference model",
        "",
        f"`{COMMAND}`",
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
    for k, block in sorted(blocks.items()):
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
    return "\n".join(lines) + "\n"
