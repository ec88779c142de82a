"""The labelled texts that detectors are trained and measured on, and who may see which.

Splits: ValueEval'23 keeps its own. All other rows go by a hash of what must not be shared (the
id; for FULCRA, the question): test below 0.2, validation below 0.3, then two halves, `a` and `b`,
so that the detector that tunes and the one that judges never learn from the same row.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from valign.corpora.load import load_corpus, load_rewrites
from valign.corpora.split import id_fraction
from valign.detect.errors import DetectorError
from valign.values import convert, load_system

TEN = load_system("schwartz10").names


@dataclass(frozen=True)
class LabelledText:
    """A text and what is known of its values.

    Attributes:
        id: stable name of the row.
        source: the set it comes from: `valueeval23`, `arguments` (the same with their
            conclusions), `fulcra`, `answers`, `neutral`,
            `rewrites`, `sources` (of the rewrites, plain), `pairs`, `persona`, `inventory`,
            `described`, `plain`, `reported`, `buried` (short ones among plain sentences).
        part: `test`, `validation`, `a` or `b`.
        prompt: what the text answers, where there is such a thing.
        signs: value of the ten -> -1, 0 or 1; values that are not named are unknown.
        categories: the ValueEval'23 categories that are present, or None where not labelled.
        level1: the ValueEval'23 level-1 values that are present, or None where not labelled.
        rival: id of the other side of a contrast pair, on the positive side only.
        value: the value of a contrast pair.
    """

    id: str
    source: str
    part: str
    text: str
    prompt: str | None = None
    signs: dict[str, int] = field(default_factory=dict)
    categories: frozenset[str] | None = None
    level1: frozenset[str] | None = None
    rival: str | None = None
    value: str | None = None


def public_folder() -> Path:
    """The folder of public data: `VALIGN_DATA`, else `../shared/data/public` beside the repository.

    Raises:
        DetectorError: no such folder.
    """
    default = Path(__file__).parents[4] / "shared" / "data" / "public"
    folder = Path(os.environ.get("VALIGN_DATA", default))
    if not folder.is_dir():
        raise DetectorError(
            f"No public data at {folder}. Set VALIGN_DATA to a folder that holds valueeval23/ "
            "and fulcra/."
        )
    return folder


def part_of(key: str) -> str:
    """`test`, `validation`, `a` or `b`, from a hash of the key alone."""
    place = id_fraction(key)
    if place < 0.2:
        return "test"
    if place < 0.3:
        return "validation"
    return "a" if place < 0.65 else "b"


def valueeval(folder: Path) -> Iterator[LabelledText]:
    """Touché23-ValueEval arguments (Mirzakhmedova et al.; CC BY 4.0).

    Each argument comes twice: its premise alone, as in a text that argues without saying what for,
    and with its stance and conclusion, as the shared task reads it.

    Training arguments go to `a` (two fifths) or `b` by their conclusion, so that the two share no
    topic; the detector that judges gets more. Unlabelled categories are absent; a value of the
    ten is +1 if any of its categories is.
    """
    for split in ("training", "validation", "test"):
        labels = _ones(folder / f"labels-{split}.tsv")
        fine_path = folder / f"level1-labels-{split}.tsv"
        fine = _ones(fine_path) if fine_path.is_file() else {}
        for row in _tsv(folder / f"arguments-{split}.tsv"):
            id = row["Argument ID"]
            present = labels[id]
            part = split
            if split == "training":
                part = "a" if id_fraction(row["Conclusion"]) < 0.4 else "b"
            premise = row["Premise"].strip()
            whole = f"{premise} So I am {row['Stance']}: {row['Conclusion'].strip()}."
            for source, key, text in (
                ("valueeval23", id, premise), ("arguments", f"{id}-argument", whole)
            ):  # fmt: skip
                yield LabelledText(
                    id=key,
                    source=source,
                    part=part,
                    text=text,
                    prompt=f"{row['Stance']}: {row['Conclusion']}",
                    signs=ten_of(present),
                    categories=present,
                    level1=fine.get(id),
                )


def fulcra(folder: Path) -> Iterator[LabelledText]:
    """FULCRA dialogues with signed labels (Yao et al. 2024; MIT); unnamed values are absent."""
    with open(folder / "trustworthy_data.jsonl", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            question, found, answer = row["dialogue"].partition("\nBob:")
            question = question.removeprefix("Human:").strip()
            if not found or not answer.strip():
                continue
            signs = dict.fromkeys(TEN, 0)
            for item in row["value_types"]:
                value, _, sign = item.lower().partition(":")
                if value.strip() in signs and "1" in sign:
                    signs[value.strip()] = -1 if "-" in sign else 1
            yield LabelledText(
                f"fulcra-{number}", "fulcra", part_of(_plain(question)), answer.strip(),
                prompt=question, signs=signs,
            )  # fmt: skip


def valuetexts() -> Iterator[LabelledText]:
    """The project's own contrast pairs, labelled answers and neutral answers."""
    corpus = load_corpus("valuetexts")
    for answer in corpus.answers:
        signs = dict.fromkeys(TEN, 0) | {v: int(s) for v, s in answer.labels}
        yield LabelledText(
            answer.id, "answers", part_of(answer.id), answer.text, answer.prompt, signs
        )
    for neutral in corpus.neutral:
        yield LabelledText(neutral.id, "neutral", part_of(neutral.id), neutral.answer,
                           neutral.prompt, dict.fromkeys(TEN, 0))  # fmt: skip
    for rewrite in load_rewrites():
        part = part_of(rewrite.id)
        yield LabelledText(f"{rewrite.id}-source", "sources", part, rewrite.source, rewrite.prompt,
                           dict.fromkeys(TEN, 0))  # fmt: skip
        signs = {v: int(np.sign(s)) for v, s in rewrite.target.items() if s}
        yield LabelledText(rewrite.id, "rewrites", part, rewrite.rewrite, rewrite.prompt, signs)
    for pair in corpus.pairs:
        part, other = part_of(pair.id), f"{pair.id}-negative"
        also = dict.fromkeys(pair.also, 1)
        yield LabelledText(pair.id, "pairs", part, pair.positive, pair.prompt,
                           also | {pair.value: 1}, rival=other, value=pair.value)  # fmt: skip
        yield LabelledText(other, "pairs", part, pair.negative, pair.prompt,
                           {pair.value: 0}, value=pair.value)  # fmt: skip


def all_texts(folder: Path | None = None) -> list[LabelledText]:
    """Every labelled text; the public ones from `folder` (default: `public_folder()`)."""
    from valign.detect import signed_statements as signed
    from valign.detect.buried import buried_texts

    folder = folder or public_folder()
    rows = [
        *valuetexts(),
        *valueeval(folder / "valueeval23"),
        *fulcra(folder / "fulcra"),
        *signed.persona_statements(folder / "persona_evals"),
        *signed.inventory_items(folder / "valuebench"),
        *signed.described_values(folder / "valueeval23"),
        *signed.plain_outputs(folder / "self_instruct"),
        *signed.reported_texts(),
    ]
    return [*rows, *buried_texts(rows)]


def select(rows: Iterable[LabelledText], source: str, *parts: str) -> list[LabelledText]:
    """The rows of one source and some parts, in order."""
    return [row for row in rows if row.source == source and row.part in parts]


def ten_of(categories: frozenset[str]) -> dict[str, int]:
    """Which of the ten a set of ValueEval'23 categories touches, as 0 or 1."""
    return {value: int(share > 0) for value, share in
            convert(_Indicator(categories), "valueeval23", "schwartz10").items()}  # fmt: skip


def category_names(folder: Path, *, level1: bool = False) -> tuple[str, ...]:
    """The 20 categories (or 54 level-1 values) of ValueEval'23, in the order of its columns."""
    name = "level1-labels-training.tsv" if level1 else "labels-training.tsv"
    with open(folder / name, encoding="utf-8") as lines:
        return tuple(next(lines).rstrip("\r\n").split("\t")[1:])


class _Indicator(dict[str, float]):
    """1 for the names given, 0 for every other."""

    def __init__(self, names: frozenset[str]):
        super().__init__(dict.fromkeys(names, 1.0))

    def __missing__(self, name: str) -> float:
        return 0.0

    def __contains__(self, name: object) -> bool:
        return True


def _tsv(path: Path) -> Iterator[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def _ones(path: Path) -> dict[str, frozenset[str]]:
    return {
        row["Argument ID"]: frozenset(name for name, cell in row.items() if cell == "1")
        for row in _tsv(path)
    }


def _plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()
