"""Short statements for and against a value, from public sets and from value descriptions.

They teach the sign, which ValueEval'23 does not hold and FULCRA rarely. What each set says about
the ten values is stated in `signed_sources.yaml`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from valign.corpora.load import load_corpus
from valign.corpora.split import id_fraction
from valign.detect.training_data import TEN, LabelledText, part_of, ten_of

_PER_DISPOSITION = 300


def persona_statements(folder: Path) -> Iterator[LabelledText]:
    """Statements for and against a disposition (Perez et al. 2022; CC BY 4.0), 300 of each."""
    for name, values in _sources()["persona_evals"].items():
        with open(folder / f"{name}.jsonl", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        rows.sort(key=lambda row: id_fraction(row["statement"], salt="sample"))
        for number, row in enumerate(rows[:_PER_DISPOSITION]):
            agrees = 1 if row["answer_matching_behavior"].strip() == "Yes" else -1
            yield LabelledText(
                f"{name}-{number}", "persona", part_of(row["statement"]), row["statement"],
                signs={value: agrees * sign for value, sign in values.items()},
            )  # fmt: skip


def inventory_items(folder: Path) -> Iterator[LabelledText]:
    """Questionnaire items with value and agreement from ValueBench (Ren et al. 2024; MIT)."""
    with open(folder / "value_orientation.csv", encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines)):
            values = _sources()["valuebench"].get(row["value"])
            if values is None or row["agreement"] not in ("1", "-1"):
                continue
            agrees = int(row["agreement"])
            yield LabelledText(
                f"valuebench-{number}", "inventory", part_of(row["item"]), row["item"],
                signs={value: agrees * sign for value, sign in values.items()},
            )  # fmt: skip


def described_values(folder: Path) -> Iterator[LabelledText]:
    """Value descriptions of ValueEval'23 (CC BY 4.0) in sentences for and against (ours)."""
    taxonomy = json.loads((folder / "value-taxonomy.json").read_text("utf-8"))
    for entry in taxonomy["values"]:
        value = _value_of(entry["level2"])
        if value is None:
            continue
        for phrase in entry["descriptions"]:
            for sign, sentences in _sources()["templates"].items():
                # one sentence per phrase and sign, chosen by the phrase
                chosen = sentences[int(id_fraction(phrase, salt="sentence") * len(sentences))]
                text = chosen.format(phrase)
                yield LabelledText(
                    f"described-{sign}-{phrase}", "described", part_of(phrase),
                    text[0].upper() + text[1:], signs={value: sign},
                )  # fmt: skip


def plain_outputs(folder: Path) -> Iterator[LabelledText]:
    """Outputs of the Self-Instruct seed tasks (Wang et al. 2023; Apache-2.0), taken as value-free.

    Not labelled by anyone: a few do express values, so they weigh little.
    """
    zeros = dict.fromkeys(TEN, 0)
    for name in ("seed_tasks", "user_oriented_instructions"):
        with open(folder / f"{name}.jsonl", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                row = json.loads(line)
                text = row["instances"][0]["output"].strip()
                if 5 <= len(text.split()) <= 80:
                    yield LabelledText(f"{name}-{number}", "plain", part_of(text), text,
                                       row["instruction"], dict(zeros))  # fmt: skip


def reported_texts() -> Iterator[LabelledText]:
    """Positive sides of the project's pairs, quoted without approval (0) or rejected (-1) (ours).

    The words of a value alone do not promote it, and to reject one value is not to reject all:
    values that the pair does not name are 0. Two thirds of the pairs, by id; each keeps the part
    of its pair.
    """
    for pair in load_corpus("valuetexts").pairs:
        sentences = _sources()["reports"]
        chosen = int(id_fraction(pair.id, salt="report") * 1.5 * len(sentences))
        if chosen < len(sentences):
            sentence, sign = sentences[chosen]
            yield LabelledText(
                f"{pair.id}-reported", "reported", part_of(pair.id),
                sentence.format(pair.positive),
                signs=dict.fromkeys(TEN, 0) | dict.fromkeys((*pair.also, pair.value), sign),
            )  # fmt: skip


@cache
def _sources() -> dict:
    path = resources.files("valign.detect") / "signed_sources.yaml"
    return yaml.safe_load(path.read_text("utf-8"))


def _value_of(category: str) -> str | None:
    return next((value for value, sign in ten_of(frozenset([category])).items() if sign), None)
