"""Measure the entailment model, the fact checker and consistency, and write the tables.

    python benchmarks/entailment.py

Accuracy on four test sets that training never saw (premises compared by text), and the share of
rewrites rejected, by the fault they were given. Intervals: Wilson, over pairs and over texts; pairs
that share a premise are not independent, so the intervals of the test sets are somewhat narrow.
A limit (`--pairs`) draws a random sample of each test set by `--seed`.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shlex
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from valign.corpora.load import load_rewrites
from valign.detect.entail import Entailment
from valign.detect.entail_consistency import LIMITS, Consistency
from valign.detect.entail_data import Pair, breaking_nli, cad_nli, esnli, med
from valign.detect.entail_model import BUNDLED, LABELS
from valign.detect.training_data import public_folder
from valign.measure.estimate import Estimate
from valign.measure.rate import rate

FAULTS = ("good", "drops", "adds", "contradiction", "wrong value")


def accuracies(
    model: Entailment, public: Path, *, pairs: int | None, seed: int
) -> dict[str, dict[str, Any]]:
    """Accuracy on each test set; MED has two labels, so its neutral is `not entailment`."""
    sets: dict[str, list[Pair]] = {
        "esnli test": esnli(public, "test"),
        "cad_nli test": cad_nli(public, "test"),
        "med": med(public),
        "breaking_nli": breaking_nli(public),
    }
    found = {}
    for name, rows in sets.items():
        if pairs is not None and pairs < len(rows):
            rows = random.Random(seed).sample(rows, pairs)
        started = time.perf_counter()
        p = model.probabilities([r.premise for r in rows], [r.hypothesis for r in rows])
        truth = np.array([LABELS.index(r.label) for r in rows])
        said = p.argmax(1)
        if name == "med":
            said, truth = (said != 0).astype(int), (truth != 0).astype(int)
        majority = np.bincount(truth).max() / len(truth)
        found[name] = {
            "accuracy": told(rate(said == truth)),
            "majority": float(majority),
            "recall": {
                label: told(rate((said == truth)[truth == i]))
                for i, label in enumerate(LABELS)
                if (truth == i).any()
            },
            "pairs_per_second": len(rows) / (time.perf_counter() - started),
        }
    return found


def rejections(judge: Consistency) -> dict[str, Any]:
    """Share of rewrites rejected by fault, for each reader alone and for all together."""
    rows = load_rewrites()
    asked = [
        (row.source, text, row.prompt, fault)
        for row in rows
        for text, fault in [
            (row.rewrite, "good"),
            *((bad.text, bad.fault.split(" ")[0]) for bad in row.bad),
        ]
    ]
    reports = judge.judge(*([a[i] for a in asked] for i in range(3)))
    kinds = np.array([{"wrong": "wrong value"}.get(a[3], a[3]) for a in asked])
    rejected: dict[str, np.ndarray] = {"all readers": np.array([not r.consistent for r in reports])}
    for reader, limit in LIMITS.items():
        rejected[reader] = np.array([r.findings[reader] >= limit for r in reports])
        rejected[f"all but {reader}"] = np.array(
            [any(r.findings[o] >= LIMITS[o] for o in LIMITS if o != reader) for r in reports]
        )
    faulty = np.isin(kinds, ["drops", "adds", "contradiction"])
    table: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, outcome in rejected.items():
        for kind in FAULTS:
            table[name][kind] = told(rate(outcome[kinds == kind]))
        table[name]["faulty"] = told(rate(outcome[faulty]))
    scores = np.array([r.score for r in reports])
    good = kinds == "good"
    auroc = (scores[faulty][:, None] < scores[good]).mean() + 0.5 * (
        scores[faulty][:, None] == scores[good]
    ).mean()
    return {"rejected": table, "auroc_good_against_faulty": float(auroc), "rewrites": len(rows)}


def told(estimate: Estimate) -> dict[str, float]:
    """An estimate as it stands in the results file."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def shown(cell: dict[str, float]) -> str:
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}] (n = {cell['n']})"


def markdown(results: dict[str, Any]) -> str:
    """The tables of the results."""
    lines = [f"`{results['command']}`, seed {results['seed']}, {results['versions']}", ""]
    lines += ["| test set | accuracy, 95 % interval | majority class |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {shown(row['accuracy'])} | {row['majority']:.3f} |"
        for name, row in results["accuracy"].items()
    ]
    columns = ["good", "drops", "adds", "contradiction", "faulty", "wrong value"]
    lines += [
        "",
        f"| share rejected | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    lines += [
        f"| {name} | {' | '.join(shown(row[column]) for column in columns)} |"
        for name, row in results["consistency"]["rejected"].items()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--public", type=Path, help="public data (default: VALIGN_DATA)")
    parser.add_argument("--weights", type=Path, default=BUNDLED)
    parser.add_argument("--pairs", type=int, help="pairs of each test set; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = Entailment.bundled(args.weights)
    results = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": args.seed,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, one thread",
        "model": model.card,
        "accuracy": accuracies(
            model, args.public or public_folder(), pairs=args.pairs, seed=args.seed
        ),
        "consistency": rejections(Consistency(model)),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "entailment.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "entailment.md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
