"""Measure the detectors of text on held-out labelled sets, and write the table.

    python benchmarks/detectors.py --out benchmarks

Every row comes from texts no detector was trained or calibrated on (`training_data.part_of`,
the published test split for ValueEval'23). Intervals: percentile bootstrap over texts (over pairs
for pairs), 500 draws, seed 0.
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
from detectors_robustness import KEEPING, LOWERING
from scipy.stats import rankdata

from valign.detect import Detector, load_detector
from valign.detect.calibrate import expected_sign, reliability, sign_probabilities
from valign.detect.classifiers import load_classifier
from valign.detect.encoder import EncoderDetector
from valign.detect.errors import DetectorError
from valign.detect.train_classifiers import harm_texts, plain_texts, refusal_texts
from valign.detect.training_data import TEN, LabelledText, all_texts, public_folder, select
from valign.detect.wordlist import WordListDetector
from valign.measure.estimate import Estimate

DRAWS = 500


def bootstrap(statistic: Callable[[np.ndarray], float], n: int) -> Estimate:
    """Percentile interval of a statistic of row indices; undefined draws are left out."""
    rng = np.random.default_rng(0)
    draws = [statistic(rng.integers(n, size=n)) for _ in range(DRAWS)]
    kept = [d for d in draws if np.isfinite(d)]
    low, high = np.quantile(kept, [0.025, 0.975]) if kept else (np.nan, np.nan)
    return Estimate(float(statistic(np.arange(n))), float(low), float(high), n)


class Scores:
    """Scores of one detector on the test and validation rows it is measured on."""

    def __init__(self, detector: Detector, rows: Sequence[LabelledText]):
        self.detector = detector
        self.place = {row.id: i for i, row in enumerate(rows)}
        began = time.perf_counter()
        self.ten = detector.score([row.text for row in rows])
        self.seconds = time.perf_counter() - began

    def of(self, rows: Sequence[LabelledText]) -> np.ndarray:
        return self.ten[[self.place[row.id] for row in rows]]


def signs(rows: Sequence[LabelledText]) -> np.ndarray:
    """Labels (n, 10), NaN where unknown."""
    return np.array([[row.signs.get(v, np.nan) for v in TEN] for row in rows], float)


def f1(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """F1 down the first axis; 0 where nothing is true or found. (n, ...) bool -> (...)."""
    both = (truth & found).sum(axis=0)
    return 2 * both / np.maximum(truth.sum(axis=0) + found.sum(axis=0), 1)


def auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """Chance that a true one scores above a false one, ties half; NaN where one kind is absent."""
    n_true = int(truth.sum())
    n_false = len(truth) - n_true
    if not n_true or not n_false:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[truth].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def mean_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Mean over values of the AUROC of +1 against absent (0)."""
    found = []
    for v in range(labels.shape[1]):
        known = labels[:, v] >= 0
        found.append(auroc(labels[known, v] > 0, scores[known, v]))
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")


def sign_accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of labels of +1 or -1 whose score has that sign; 0 is wrong."""
    some = np.nan_to_num(labels) != 0
    return float((np.sign(scores[some]) == labels[some]).mean()) if some.any() else float("nan")


def opposed_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """AUROC of +1 against -1 over all values together."""
    some = np.nan_to_num(labels) != 0
    return auroc(labels[some] > 0, scores[some])


def value_figures(scores: Scores, rows: list[LabelledText]) -> dict[str, Estimate]:
    """Everything that needs nothing but scores over the ten values."""
    out: dict[str, Estimate] = {}

    def add(name: str, of: list[LabelledText], statistic: Callable[..., float]) -> None:
        y, s = signs(of), scores.of(of)
        out[name] = bootstrap(lambda i: statistic(y[i], s[i]), len(of))

    held = select(rows, "valueeval23", "validation")
    y, s = signs(held) > 0, scores.of(held)
    best = np.array([
        max(np.quantile(s[:, v], np.linspace(0.2, 0.995, 80)),
            key=lambda t, v=v: f1(y[:, v], s[:, v] >= t))
        for v in range(10)
    ])  # fmt: skip
    add("ValueEval'23 macro-F1, ten values", select(rows, "valueeval23", "test"),
        lambda y, s: float(f1(y > 0, s >= best).mean()))  # fmt: skip
    fulcra = select(rows, "fulcra", "test")
    add("FULCRA sign accuracy", fulcra, sign_accuracy)
    add("FULCRA AUROC, +1 against -1", fulcra, opposed_auroc)
    answers = select(rows, "answers", "test")
    add("answers: mean AUROC, +1 against absent", answers, mean_auroc)
    add("answers: sign accuracy", answers, sign_accuracy)
    for source in ("persona", "inventory", "described"):
        add(f"signed statements ({source}): sign accuracy", select(rows, source, "test"),
            sign_accuracy)  # fmt: skip
    for source, title in (("pairs", "pairs"), ("buried", "pairs among plain sentences")):
        firsts = [r for r in select(rows, source, "test") if r.rival]
        column = np.array([TEN.index(str(r.value)) for r in firsts])
        up = scores.of(firsts)[np.arange(len(firsts)), column]
        down = scores.ten[[scores.place[str(r.rival)] for r in firsts], column]
        out[f"{title}: positive above negative"] = bootstrap(
            lambda i, up=up, down=down: float((up[i] > down[i]).mean()), len(firsts)
        )
    threshold = getattr(scores.detector, "thresholds", np.full(10, 0.5))
    for source, title in (("neutral", "neutral answers"), ("sources", "plain answers with facts")):
        own = scores.of(select(rows, source, "test", "validation"))
        quiet = (own < threshold).all(axis=1)
        out[f"{title}: all values below threshold"] = bootstrap(
            lambda i, quiet=quiet: float(quiet[i].mean()), len(quiet)
        )
    return out


def category_figures(detector: EncoderDetector, rows: list[LabelledText]) -> dict[str, Estimate]:
    """ValueEval'23's own task: macro-F1 over its twenty categories on its test split."""
    out: dict[str, Estimate] = {}
    names = detector.head.categories
    for source, title in (("arguments", "whole argument"), ("valueeval23", "premise only")):
        test = select(rows, source, "test")
        truth = np.array([[name in (row.categories or ()) for name in names] for row in test])
        _, logits = detector.logits([row.text for row in test])
        found = 1 / (1 + np.exp(-logits)) >= np.array(detector.settings["category_thresholds"])
        out[f"ValueEval'23 macro-F1, 20 categories ({title})"] = bootstrap(
            lambda i, t=truth, f=found: float(f1(t[i], f[i]).mean()), len(test)
        )
    always = np.ones_like(found)
    out["the same, every category always"] = bootstrap(
        lambda i: float(f1(truth[i], always[i]).mean()), len(test)
    )
    return out


def robustness(detector: Detector, rows: list[LabelledText]) -> dict[str, dict[str, float]]:
    """Score of the labelled value before and after a change, on texts that promote a value.

    Beside it the mean score of the values that are not labelled as promoted: a text that rejects
    one value says nothing against the others.
    """
    chosen = [r for r in rows if r.part == "test" and r.source in ("answers", "rewrites", "pairs")
              and max(r.signs.values()) > 0]  # fmt: skip
    columns = np.array([TEN.index(max(r.signs, key=lambda v, r=r: r.signs[v])) for r in chosen])
    at = np.arange(len(chosen))
    others = signs(chosen) != 1
    texts = [r.text for r in chosen]
    scores = detector.score(texts)
    plain = scores[at, columns]
    table = {
        "unchanged": {
            "n": len(chosen), "score": float(plain.mean()), "others": float(scores[others].mean())
        }
    }  # fmt: skip
    for name, change in (KEEPING | LOWERING).items():
        scores = detector.score([change(t, k) for k, t in enumerate(texts)])
        after = scores[at, columns]
        table[name] = {
            "n": len(chosen),
            "score": float(after.mean()),
            "others": float(scores[others].mean()),
            "mean size of change": float(np.abs(after - plain).mean()),
            "share that fell": float((after < plain - 1e-6).mean()),
            "share below zero": float((after < 0).mean()),
        }
    return table


def calibration_figures(detector: EncoderDetector, rows: list[LabelledText]) -> dict[str, dict]:
    """Reliability of P(promotes) on test rows, before and after calibration."""
    out = {}
    groups = {
        "ValueEval'23": ("valueeval23",), "FULCRA": ("fulcra",),
        "own texts": ("answers", "neutral", "sources", "rewrites"),
    }  # fmt: skip
    for title, sources in groups.items():
        own = [r for r in rows if r.part == "test" and r.source in sources]
        y = signs(own)
        raw, _ = detector.logits([r.text for r in own])
        outcome = np.where(np.isnan(y), np.nan, y > 0)
        for when, logits in (("before", raw), ("after", detector.calibration.apply(raw))):
            table = reliability(sign_probabilities(logits)[..., 2], outcome)
            out[f"{title}, {when}"] = {
                "n": len(own), "calibration error": table.error, "Brier score": table.brier,
                "mean score": float(expected_sign(logits).mean()),
                "mean label": float(np.nanmean(y)),
            }  # fmt: skip
    return out


def classifier_figures(data: Path) -> dict[str, Estimate]:
    """Harm and refusal on the test rows of the sets they were fitted on."""
    out = {}
    for name, rows in (("harm", harm_texts(data / "openai_moderation")),
                       ("refusal", refusal_texts(data / "xstest"))):  # fmt: skip
        classifier = load_classifier(name)
        plain = [row.text for row in plain_texts(data, 1) if row.part == "test"]
        quiet = ~classifier.flags(plain)
        out[f"{name}: plain texts not flagged"] = bootstrap(
            lambda i, q=quiet: float(q[i].mean()), len(quiet)
        )
        test = [row for row in rows if row.part == "test"]
        y = np.array([row.labels for row in test])
        p = classifier.probabilities([row.text for row in test])
        flags = p[:, 0] >= classifier.threshold
        out[f"{name}: F1 at its threshold"] = bootstrap(
            lambda i, y=y, f=flags: float(f1(y[i, 0] > 0, f[i])), len(test)
        )
        out[f"{name}: always yes, F1"] = bootstrap(
            lambda i, y=y: float(f1(y[i, 0] > 0, np.ones(len(i), bool))), len(test)
        )
        for column, label in enumerate(classifier.labels):
            known = ~np.isnan(y[:, column])
            truth, own = y[known, column], p[known, column]
            out[f"{name}: AUROC, {label}"] = bootstrap(
                lambda i, t=truth > 0, o=own: auroc(t[i], o[i]), len(truth)
            )
        for group in sorted({row.group for row in test if row.group}):
            own = np.array([row.group == group for row in test])
            out[f"{name}: accuracy on {group}"] = bootstrap(
                lambda i, y=y[own, 0], f=flags[own]: float((y[i] == f[i]).mean()), int(own.sum())
            )
    return out


def speed(detector: Detector, rows: list[LabelledText], *, n: int = 200) -> float:
    """Texts a second over the first `n` test answers, pairs and arguments."""
    texts = [r.text for r in rows if r.source in ("answers", "pairs", "valueeval23")][:n]
    detector.score(texts[:8])
    began = time.perf_counter()
    detector.score(texts)
    return len(texts) / (time.perf_counter() - began)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write `detectors.json` and `detectors.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detectors", nargs="+",
                        default=["wordlist", "dictionary", "english-a", "english-b"])  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-classifiers", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    data = given.data or public_folder()
    rows = [r for r in all_texts(data) if r.part in ("test", "validation")
            and not (r.part == "validation" and r.source in ("fulcra", "persona"))]  # fmt: skip
    results: dict = {
        "command": "python benchmarks/detectors.py",
        "draws": DRAWS, "seed": 0, "machine": platform.machine(), "torch": torch.__version__,
        "detectors": {},
    }  # fmt: skip
    earlier = given.out / "detectors.json"
    if earlier.is_file():  # detectors that are not measured again keep their figures
        results = json.loads(earlier.read_text("utf-8")) | results | {
            "detectors": json.loads(earlier.read_text("utf-8"))["detectors"]
        }  # fmt: skip
    for name in given.detectors:
        detector: Detector
        if name == "dictionary":
            path = data / "personal_values_dictionary" / "en.json"
            detector = WordListDetector.from_dictionary(path)
        else:
            detector = load_detector(name)
        scores = Scores(detector, rows)
        figures = value_figures(scores, rows)
        own: dict = {
            "name": detector.name, "threads": given.threads,
            "texts a second": speed(detector, rows),
        }  # fmt: skip
        if isinstance(detector, EncoderDetector):
            own["weights"] = detector.fingerprint
        if isinstance(detector, EncoderDetector):
            figures = category_figures(detector, rows) | figures
            own["reliability"] = calibration_figures(detector, rows)
        own["robustness"] = robustness(detector, rows)
        own["figures"] = {key: vars(value) for key, value in figures.items()}
        results["detectors"][name] = own
        print(name, {k: str(v) for k, v in figures.items()}, flush=True)
        _write(results, given.out)
    if not given.skip_classifiers:
        try:
            found = classifier_figures(data)
        except DetectorError as error:
            print(f"classifiers left out: {error}")
        else:
            results["classifiers"] = {key: vars(value) for key, value in found.items()}
    _write(results, given.out)


def _write(results: dict, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "detectors.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (out / "detectors.md").write_text(_markdown(results), "utf-8")


def _cell(figure: dict | None) -> str:
    if figure is None:
        return ""
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _markdown(results: dict) -> str:
    names = list(results["detectors"])
    lines = [
        "# Detectors of text, measured", "",
        f"Made by `{results['command']}` (torch {results['torch']}, seed {results['seed']}). "
        f"Brackets: 95 % percentile bootstrap over texts, "
        f"{results['draws']} draws. No text here was trained or calibrated on; thresholds on "
        "ValueEval'23 come from its validation split. Neutral and plain answers include the "
        "validation rows, which calibration did see.", "",
        "| figure | n | " + " | ".join(names) + " |", "| --- | --- |" + " --- |" * len(names),
    ]  # fmt: skip
    rows = {key: fig for name in names
            for key, fig in results["detectors"][name]["figures"].items()}  # fmt: skip
    for key, any_figure in rows.items():
        cells = [_cell(results["detectors"][name]["figures"].get(key)) for name in names]
        lines.append(f"| {key} | {any_figure['n']} | " + " | ".join(cells) + " |")
    cells = [f"{results['detectors'][name]['texts a second']:.0f}" for name in names]
    lines.append("| texts a second (on a machine shared with other work) | 200 | "
                 + " | ".join(cells) + " |")  # fmt: skip
    for name in names:
        own = results["detectors"][name]
        lines += ["", f"## {name}: what changes its mind", "",
                  "Mean score of the labelled value on held-out texts that promote it, and of the "
                  "values they are not labelled to promote.", "",
                  "| change | score | others | mean size of change | share that fell | "
                  "share below zero |",
                  "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
        for change, row in own["robustness"].items():
            keys = ("score", "others", "mean size of change", "share that fell",
                    "share below zero")  # fmt: skip
            rest = [f"{row[k]:.2f}" if k in row else "" for k in keys]
            lines.append(f"| {change} (n = {row['n']}) | " + " | ".join(rest) + " |")
        if "reliability" in own:
            lines += ["", f"## {name}: reliability of P(promotes)", "",
                      "| texts | n | calibration error | Brier score | mean score | mean label |",
                      "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
            for title, row in own["reliability"].items():
                keys = ("calibration error", "Brier score", "mean score", "mean label")
                rest = [f"{row[k]:.3f}" for k in keys]
                lines.append(f"| {title} | {row['n']} | " + " | ".join(rest) + " |")
    if "classifiers" in results:
        lines += ["", "## Harm and refusal", "", "| figure | n | value |", "| --- | --- | --- |"]
        lines += [f"| {key} | {fig['n']} | {_cell(fig)} |"
                  for key, fig in results["classifiers"].items()]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
