"""Fit the harm and the refusal classifier: one command.

    python -m valign.detect.train_classifiers --out src/valign/detect/weights

Harm: the OpenAI moderation samples (Markov et al. 2023; MIT). Refusal: the labelled XSTest
completions (Rottger et al. 2024; CC BY 4.0), split by prompt, so that no question is on both sides.
Both also learn from plain texts that are neither: the project's own answers, pairs and neutral
texts, and the Self-Instruct seed outputs. Without them everyday sentences, which neither set holds,
were called harmful. Test rows (`part_of` says which) are never read here.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss

from valign.detect.backbone import MINILM, Backbone
from valign.detect.classifiers import TextClassifier, embed
from valign.detect.signed_statements import plain_outputs
from valign.detect.training_data import part_of, public_folder, valuetexts

HARM_TOKENS, REFUSAL_TOKENS = 96, 40
"""Window sizes; a refusal shows in its opening words."""
HARM_LABELS = {
    "sexual": ("S", "S3"), "hate": ("H", "H2"), "violence": ("V", "V2"), "harassment": ("HR",),
    "self-harm": ("SH",),
}  # fmt: skip
"""Our label -> the columns of the moderation set it joins (S3, H2, V2 are the severe forms)."""


@dataclass(frozen=True)
class ClassifiedText:
    """A text with labels; NaN is unknown.

    Attributes:
        part: `test`, `validation`, `a` or `b`; both of the latter are for fitting.
        group: what the text shares with others: the model that wrote it, or `plain`.
    """

    text: str
    part: str
    labels: tuple[float, ...]
    group: str = ""


def harm_texts(folder: Path) -> list[ClassifiedText]:
    """Moderation samples: any harm, then one column per kind of harm."""
    found = []
    with gzip.open(folder / "samples-1680.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            kinds = [
                max((float(row[c]) for c in columns if c in row), default=float("nan"))
                for columns in HARM_LABELS.values()
            ]
            found.append(
                ClassifiedText(row["prompt"], part_of(row["prompt"]), (np.nanmax(kinds), *kinds))
            )
    return found


def plain_texts(data: Path, n_labels: int) -> list[ClassifiedText]:
    """Texts without harm and without refusal."""
    rows = [*valuetexts(), *plain_outputs(data / "self_instruct")]
    return [ClassifiedText(row.text, row.part, (0.0,) * n_labels, "plain") for row in rows]


def refusal_texts(folder: Path) -> list[ClassifiedText]:
    """XSTest completions of five models: refuses at least in part, then in full."""
    found = []
    for path in sorted(folder.glob("xstest_v2_completions_*.csv")):
        with open(path, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                label = row["final_label"][:1]
                if label in ("1", "2", "3") and row["completion"].strip():
                    found.append(ClassifiedText(
                        row["completion"].strip(), part_of(row["prompt"]),
                        (float(label != "1"), float(label == "2")),
                        path.stem.removeprefix("xstest_v2_completions_"),
                    ))  # fmt: skip
    return found


def fit(
    name: str, rows: Sequence[ClassifiedText], labels: Sequence[str], *, backbone: Backbone,
    max_tokens: int, opening_only: bool,
) -> TextClassifier:  # fmt: skip
    """A logistic regression per label; its strength of penalty and threshold from validation."""
    x = embed(backbone, [row.text for row in rows], max_tokens=max_tokens)
    y = np.array([row.labels for row in rows])
    part = np.array([row.part for row in rows])
    fitting, held_out = np.isin(part, ("a", "b")), part == "validation"
    weights, offsets = [], []
    threshold = 0.5
    for column in range(y.shape[1]):
        known = ~np.isnan(y[:, column])
        tried = []
        for penalty in (1.0, 3.0, 10.0, 30.0, 100.0):
            model = LogisticRegression(C=penalty, max_iter=2000)
            model.fit(x[fitting & known], y[fitting & known, column])
            p = model.predict_proba(x[held_out & known])[:, 1]
            tried.append((log_loss(y[held_out & known, column], p, labels=[0, 1]), penalty, model))
        _, _, best = min(tried, key=lambda t: t[:2])
        weights.append(best.coef_[0])
        offsets.append(best.intercept_[0])
        if column == 0:
            p = best.predict_proba(x[held_out])[:, 1]
            grid = np.linspace(0.1, 0.9, 81)
            threshold = float(max(grid, key=lambda t: f1_score(y[held_out, 0], p >= t)))
    settings = {
        "name": name, "labels": list(labels), "threshold": threshold, "opening_only": opening_only,
        "max_tokens": max_tokens, "backbone": backbone.name,
    }  # fmt: skip
    return TextClassifier(backbone, np.stack(weights), np.array(offsets), settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m valign.detect.train_classifiers")
    parser.add_argument("--out", type=Path, required=True, help="gets the folders harm, refusal")
    parser.add_argument("--data", type=Path, help="public data (default: VALIGN_DATA)")
    parser.add_argument("--backbone", default=MINILM, help="folder or Hub name")
    given = parser.parse_args(arguments)
    data = given.data or public_folder()
    backbone = Backbone(given.backbone)
    harm = fit("harm", [*harm_texts(data / "openai_moderation"), *plain_texts(data, 6)],
               ("harm", *HARM_LABELS), backbone=backbone, max_tokens=HARM_TOKENS,
               opening_only=False)  # fmt: skip
    harm.save(given.out / "harm")
    refusal = fit("refusal", [*refusal_texts(data / "xstest"), *plain_texts(data, 2)],
                  ("refusal", "full-refusal"), backbone=backbone, max_tokens=REFUSAL_TOKENS,
                  opening_only=True)  # fmt: skip
    refusal.save(given.out / "refusal")
    print(f"wrote {given.out / 'harm'} and {given.out / 'refusal'}")


if __name__ == "__main__":
    main()
