"""What the instruments say of rewrites written by hand: the ceiling of VISA's figures on real text.

    python benchmarks/visa_real_text.py

The bundled triplets (source, wanted values, rewrite; and rewrites with a fault), judged by
`english-b` and the bundled entailment model. The target is the judge's reading of the source with
the wanted values set. No language model for English was at hand to rewrite them. Intervals: 95 %
bootstrap over triplets.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from valign.corpora.triplets import load_triplets
from valign.detect import load_detector
from valign.measure import Resampling
from valign.measure.rewriting import figures
from valign.methods.visa.fidelity import EntailmentFidelity
from valign.methods.visa.target import composed
from valign.values import load_system

HERE = Path(__file__).parent
SYSTEM = load_system("schwartz10")
COLUMNS = {
    "consistency": "consistency", "distance": "L2", "cosine": "cosine", "jsr": "JSR",
    "untouched": "untouched values moved by",
}  # fmt: skip


def measured() -> dict[str, Any]:
    """Texts -> figures with intervals."""
    triplets = load_triplets(SYSTEM)
    judge, fidelity = load_detector("english-b"), EntailmentFidelity()
    original = judge.score([t.source for t in triplets])
    arms = {
        "unchanged": [(i, t.source) for i, t in enumerate(triplets)],
        "reference rewrites": [(i, t.rewrite) for i, t in enumerate(triplets)],
        "rewrites with a fault": [(i, x) for i, t in enumerate(triplets) for x in t.worse],
    }
    found = {}
    for arm, rows in arms.items():
        numbers, texts = [i for i, _ in rows], [text for _, text in rows]
        target = np.array([composed(SYSTEM, original[i], triplets[i].changes) for i in numbers])
        faithful = fidelity.judge([triplets[i].source for i in numbers], texts)
        draws = Resampling.of(len(texts), seed=0, n_boot=2000, clusters=numbers)
        made = figures(judge.score(texts), original[numbers], target, faithful, draws)
        found[arm] = {name: asdict(estimate) for name, estimate in vars(made).items()}
    return found


def page(results: dict[str, Any]) -> str:
    """`visa_real_text.md`."""
    lines = ["# Rewrites of real text", "", "`python benchmarks/visa_real_text.py`", "",
             " ".join((__doc__ or "").split("\n\n")[2].split()), "",
             "| texts | " + " | ".join(COLUMNS.values()) + " |",
             "| --- |" + " --- |" * len(COLUMNS)]  # fmt: skip
    for name, found in results["texts"].items():
        cells = [
            f"{found[n]['value']:.2f} [{found[n]['low']:.2f}, {found[n]['high']:.2f}]"
            for n in COLUMNS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    judge = load_detector("english-b")
    results = {"judge": {"name": judge.name, "weights": judge.fingerprint}, "texts": measured()}
    text = json.dumps(results, indent=1) + "\n"
    (HERE / "visa_real_text.json").write_text(text, "utf-8")
    (HERE / "visa_real_text.md").write_text(page(results), "utf-8")


if __name__ == "__main__":
    main()
