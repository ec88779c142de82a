"""How well each detector agrees with the world's exact parser.

    python benchmarks/judge_agreement.py

writes `benchmarks/judge_agreement.{md,json}`. Two kinds of text: the generator's own answers to
held-out dilemmas, whose values are known by construction, and answers of the reference model,
whose values the parser reads. A third row scores the same answers with their words shuffled: the
parser hears nothing in them, so a detector's score there is what it gives to words alone. Most
values are spoken for, so a sign is worth what it adds to always guessing "for". About 2.5 minutes
of one core.
"""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectors import auroc, bootstrap

from valign.corpora import load_corpus
from valign.detect import load_detector
from valign.detect.types import Detector
from valign.detect.wordlist import WordListDetector
from valign.lm import HostModel, generate
from valign.values import load_system
from valign.world import VALUES, World, WorldJudge, reference_path

HERE = Path(__file__).parent
ANSWERS = 800


def learned_words() -> WordListDetector:
    """Word lists that know the world: each word of the fitting pairs votes for its own value."""
    counts: dict[str, dict[str, int]] = {}
    for pair in load_corpus("world").pairs:
        for side, step in ((pair.positive, 1), (pair.negative, -1)):
            for word in set(side.lower().replace(".", "").replace(",", "").split()):
                own = counts.setdefault(word, dict.fromkeys(VALUES, 0))
                own[pair.value] += step
    lists: dict[str, list[str]] = {value: [] for value in VALUES}
    for word, own in counts.items():
        value = max(own, key=lambda v: own[v])
        if own[value] > 3:
            lists[value].append(word)
    return WordListDetector(lists, load_corpus("world").system)


class AlwaysFor:
    """Says of every text that it speaks for every value: what a sign costs nothing to guess."""

    name = "always-for"

    def __init__(self) -> None:
        self.system = load_system("schwartz10")

    def score(
        self, texts: Sequence[str], prompts: Sequence[str | None] | None = None
    ) -> np.ndarray:
        return np.ones((len(texts), len(self.system)))


def texts() -> dict[str, tuple[list[str], np.ndarray]]:
    """Kind of text -> (answers, signs (n, 10))."""
    items = World(split="heldout").dilemmas(ANSWERS, seed=77)
    truth = np.stack([item.truth.sign for item in items]).astype(float)
    lm = HostModel.load(reference_path())
    said = generate(
        lm, [item.messages for item in items], temperature=1.0, seed=0, max_new_tokens=96,
        batch_size=64,
    ).texts  # fmt: skip
    judge = WorldJudge()
    read = np.stack([np.sign(judge.read(i, t).scores) for i, t in zip(items, said, strict=True)])
    rng = random.Random(0)
    shuffled = [" ".join(rng.sample(i.answer.split(), len(i.answer.split()))) for i in items]
    return {
        "generator's answers": ([item.answer for item in items], truth),
        "reference model's answers": (said, read),
        "shuffled words (labels of the answers before)": (shuffled, truth),
    }


def figures(detector: Detector, answers: list[str], signs: np.ndarray) -> dict[str, list[float]]:
    """Mean AUROC of spoken-for against absent, and sign accuracy where a value is present."""
    scores = detector.score(answers)
    order = [detector.system.names.index(value) for value in VALUES]
    scores = scores[:, order]

    def mean_auroc(rows: np.ndarray) -> float:
        found = []
        for v in range(len(VALUES)):
            known = rows[signs[rows, v] >= 0]
            found.append(auroc(signs[known, v] > 0, scores[known, v]))
        return float(np.nanmean(found))

    def sign_accuracy(rows: np.ndarray) -> float:
        some = signs[rows] != 0
        return float((np.sign(scores[rows][some]) == signs[rows][some]).mean())

    n = len(answers)
    found = {"auroc": bootstrap(mean_auroc, n), "sign accuracy": bootstrap(sign_accuracy, n)}
    return {k: [round(x, 4) for x in (e.value, e.low, e.high)] for k, e in found.items()}


def main() -> None:
    named: dict[str, Detector] = {
        "world (the parser)": load_detector("world"),
        "always for, unread": AlwaysFor(),
        "word list": load_detector("wordlist"),
        "word list learned from the world's pairs": learned_words(),
        "english-a": load_detector("english-a"),
        "english-b": load_detector("english-b"),
    }
    table = {
        kind: {name: figures(detector, answers, signs) for name, detector in named.items()}
        for kind, (answers, signs) in texts().items()
    }
    lines = [
        "# Detectors against the world's truth",
        "",
        "`python benchmarks/judge_agreement.py`",
        "",
        f"{ANSWERS} held-out dilemmas; the model's answers are sampled at temperature 1, seed 0. "
        "AUROC: a value spoken for against absent, mean over ten values. Sign accuracy: over the "
        "values that are present; a score of 0 counts as wrong. 95 % bootstrap intervals over "
        "answers.",
    ]
    for kind, rows in table.items():
        lines += ["", f"## {kind}", "", "| detector | AUROC | sign accuracy |", "|---|---|---|"]
        for name, row in rows.items():
            cells = (f"{v:.3f} [{low:.3f}, {high:.3f}]" for v, low, high in row.values())
            lines.append(f"| {name} | {' | '.join(cells)} |")
    (HERE / "judge_agreement.md").write_text("\n".join(lines) + "\n", "utf-8")
    out = {"answers": ANSWERS, "python": platform.python_version(), "figures": table}
    (HERE / "judge_agreement.json").write_text(json.dumps(out, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
