"""Measure the translator on instructions it never learned from, and write the table.

    python benchmarks/translator.py

Two test sets: the held-out third of the project's labelled shifts, and `data/translator_test.txt`,
written before training and never tuned on. Beside the shipped weights stand the rules, and the
answer that is always empty; `--seeds` adds runs of `python -m valign.translate.train` and the
range over them. Intervals: percentile bootstrap over instructions, 1,000 draws, seed 0.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

from valign.detect.calibrate import reliability
from valign.measure.estimate import Estimate
from valign.translate import RuleTranslator, Translation
from valign.translate.figures import exact_signs, figures
from valign.translate.material import held_out_shifts
from valign.translate.model import EnglishTranslator
from valign.translate.notation import Labelled, read_labelled
from valign.translate.train import VALUES, as_array

DRAWS = 1000
OWN = Path(__file__).parent / "data" / "translator_test.txt"


def bootstrap(found: np.ndarray, wanted: np.ndarray) -> dict[str, Estimate]:
    """All figures with percentile intervals; draws where a figure is undefined are left out."""
    rng = np.random.default_rng(0)
    n = len(wanted)
    draws = [figures(found[i], wanted[i]) for i in (rng.integers(n, size=n) for _ in range(DRAWS))]
    out = {}
    for name, value in figures(found, wanted).items():
        own = np.array([draw[name] for draw in draws])
        own = own[np.isfinite(own)]
        low, high = np.quantile(own, [0.025, 0.975]) if len(own) else (np.nan, np.nan)
        out[name] = Estimate(value, float(low), float(high), n)
    return out


def shifts_of(translations: Sequence[Translation]) -> np.ndarray:
    return np.array([[t.get(value, 0.0) for value in VALUES] for t in translations])


def certainty(translations: Sequence[Translation], wanted: np.ndarray) -> dict[str, float]:
    """Whether the confidence says how often all signs are right."""
    sure = np.array([t.confidence for t in translations])
    right = exact_signs(shifts_of(translations), wanted)
    pairs = sure[right][:, None] - sure[~right][None, :]
    return {
        "mean confidence": float(sure.mean()),
        "all signs right": float(right.mean()),
        "calibration error": reliability(sure, right.astype(float), bins=5).error,
        "auroc": float(((pairs > 0) + 0.5 * (pairs == 0)).mean()) if pairs.size else float("nan"),
    }


def milliseconds(translate: Callable[[list[str]], object], rows: Sequence[Labelled]) -> float:
    """Median processor time of one instruction alone, after a first one, with one thread."""
    took = []
    for row in rows[:60]:
        began = time.process_time()
        translate([row.text])
        took.append(time.process_time() - began)
    return float(np.median(took[1:]) * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=Path, nargs="*", default=[], help="folders of other runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    torch.set_num_threads(1)
    shipped, rules = EnglishTranslator.load(), RuleTranslator()
    runs = {f"seed {m.settings['seed']}": m for m in map(EnglishTranslator.load, given.seeds)}
    sets = {"held-out shifts": held_out_shifts(), "own test": list(read_labelled(OWN))}
    result: dict = {
        "command": "python benchmarks/translator.py", "translator": shipped.name,
        "fingerprint": shipped.fingerprint, "seed": shipped.settings["seed"],
        "python": platform.python_version(), "torch": torch.__version__,
        "transformers": transformers.__version__, "sets": {},
    }  # fmt: skip
    for title, rows in sets.items():
        texts, wanted = [row.text for row in rows], as_array(rows)
        made = {"rules": rules.translate_all(texts), "english": shipped.translate_all(texts)}
        made |= {name: run.translate_all(texts) for name, run in runs.items()}
        found = {"always empty": np.zeros_like(wanted)}
        found |= {name: shifts_of(translations) for name, translations in made.items()}
        result["sets"][title] = {
            "n": len(rows), "empty": int((~wanted.any(axis=1)).sum()),
            "figures": {
                name: {k: vars(e) for k, e in bootstrap(shifts, wanted).items()}
                for name, shifts in found.items()
            },
            "confidence": certainty(made["english"], wanted),
        }  # fmt: skip
    rows = sets["own test"]
    result["milliseconds"] = {
        "english": milliseconds(shipped.translate_all, rows),
        "rules": milliseconds(rules.translate_all, rows),
    }
    (given.out / "translator.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / "translator.md").write_text(markdown(result))
    print(markdown(result))


def markdown(result: dict) -> str:
    """The tables."""
    lines = [
        f"`{result['command']}`, {result['translator']} (seed {result['seed']}, weights "
        f"{result['fingerprint']}), python {result['python']}, torch {result['torch']}, "
        f"transformers {result['transformers']}, one thread. 95 % bootstrap intervals over "
        "instructions.",
    ]
    for title, own in result["sets"].items():
        names = list(own["figures"])
        lines += ["", f"## {title}: {own['n']} instructions, {own['empty']} of them ask for "
                  "nothing about values", ""]  # fmt: skip
        lines += [f"| figure | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
        for figure in own["figures"]["english"]:
            cells = [_cell(own["figures"][name][figure]) for name in names]
            lines.append(f"| {figure} | {' | '.join(cells)} |")
        sure = own["confidence"]
        lines += ["", "Confidence of english: " + ", ".join(f"{k} {v:.2f}" for k, v in sure.items())
                  + "."]  # fmt: skip
    spent = ", ".join(f"{name} {ms:.1f} ms" for name, ms in result["milliseconds"].items())
    lines += ["", f"One instruction alone, median processor time: {spent}."]
    return "\n".join(lines) + "\n"


def _cell(estimate: dict) -> str:
    if not np.isfinite(estimate["value"]):
        return "–"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


if __name__ == "__main__":
    main()
