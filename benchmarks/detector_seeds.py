"""How much a detector owes to its training seed and to how much it was trained on.

    python -m valign.detect.train --name english-b --part b --seed 12 --work WORK --out RUNS/b-1-12
    python -m valign.detect.train --name english-b --part b --seed 2 --fraction 0.5 \
        --work WORK --out RUNS/b-0.5-2
    ...
    python benchmarks/detector_seeds.py RUNS

reads the folders `PART-FRACTION-SEED` under RUNS and writes `detector_seeds.json` and `.md`. The
texts and statistics are those of `detectors.py`; intervals are over texts, not over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from detectors import Scores, category_figures, robustness, value_figures

from valign.detect.encoder import EncoderDetector
from valign.detect.training_data import all_texts, public_folder

HERE = Path(__file__).parent
PADDED = "eight plain sentences around"


def measured(folder: Path, rows: list) -> dict[str, float]:
    """The point figures of one trained detector."""
    detector = EncoderDetector.load(folder)
    found = category_figures(detector, rows) | value_figures(Scores(detector, rows), rows)
    figures = {name: estimate.value for name, estimate in found.items()}
    change = robustness(detector, rows)
    for name in ("unchanged", PADDED, "rejected as a whole", "third party"):
        figures[f"score of the labelled value, {name}"] = change[name]["score"]
    figures["score of other values, rejected as a whole"] = change["rejected as a whole"]["others"]
    return figures


def table(results: dict[str, dict[str, float]]) -> str:
    """Rows are figures; columns are parts and shares of the training rows."""
    groups: dict[tuple[str, float], list[str]] = {}
    for name in results:
        part, fraction, _ = name.split("-")
        groups.setdefault((part, float(fraction)), []).append(name)
    order = sorted(groups, key=lambda g: (g[0] != "b", g[0], g[1]))
    lines = [
        "# Detectors: training seeds and amounts", "",
        "Made by `python benchmarks/detector_seeds.py RUNS` from detectors trained by the commands "
        "in that script. Held-out texts of `detectors.md`. Several seeds: mean (lowest to "
        "highest).", "",
        "| figure | " + " | ".join(
            f"{p}, {f:.0%} of its rows, seed{'s' * (len(groups[p, f]) > 1)} "
            + ", ".join(n.split("-")[2] for n in groups[p, f]) for p, f in order
        ) + " |",
        "| --- " * (len(order) + 1) + "|",
    ]  # fmt: skip
    for figure in next(iter(results.values())):
        cells = []
        for group in order:
            values = [results[n][figure] for n in groups[group]]
            told = f"{np.mean(values):.3f}"
            cells.append(
                told if len(values) == 1 else f"{told} ({min(values):.3f} to {max(values):.3f})"
            )
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    given = parser.parse_args()
    rows = [r for r in all_texts(public_folder()) if r.part in ("test", "validation")
            and not (r.part == "validation" and r.source in ("fulcra", "persona"))]  # fmt: skip
    results = {}
    for folder in sorted(p.parent for p in given.runs.glob("*/detector.safetensors")):
        results[folder.name] = measured(folder, rows)
        print(folder.name, results[folder.name], flush=True)
    (HERE / "detector_seeds.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (HERE / "detector_seeds.md").write_text(table(results), "utf-8")


if __name__ == "__main__":
    main()
