"""Public sets about entailment: what follows from a text, what contradicts it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from valign.corpora.errors import CorpusError
from valign.corpora.public.source import check_split, data_file, read_tsv, read_zipped
from valign.corpora.split import id_fraction

Folder = str | Path | None
Label = Literal["entailment", "neutral", "contradiction"]


@dataclass(frozen=True)
class Entailment:
    """Whether the hypothesis follows from the premise; `kind` is the set's own sort, if any."""

    premise: str
    hypothesis: str
    label: Label
    kind: str = ""


def esnli(split: str = "dev", *, folder: Folder = None) -> tuple[Entailment, ...]:
    """SNLI's dev and test pairs as they come with e-SNLI (Camburu et al., 2018), MIT, CC BY-SA."""
    check_split("esnli", split, ("dev", "test"))
    columns = (
        data_file("esnli", f"{name}.{split}", folder).read_text("utf-8").rstrip("\n").split("\n")
        for name in ("s1", "s2", "labels")
    )
    return tuple(
        Entailment(premise.strip(), hypothesis.strip(), _label(label.strip()))
        for premise, hypothesis, label in zip(*columns, strict=True)
    )


_BLOCK = 5
"""Rows per original pair in `all_combined_*.tsv`: the pair and its four edits."""


def cad_nli(split: str = "train", *, folder: Folder = None) -> tuple[Entailment, ...]:
    """Counterfactually edited SNLI pairs (Kaushik et al., ICLR 2020), Apache-2.0, CC BY-SA.

    The set's own dev part lies inside e-SNLI dev, so it is not offered: `validation` is a tenth of
    the blocks of train (an original and its four edits stay together), and `train` is the rest
    without the rows that share a sentence with `validation`. Splits: train, validation, test.
    """
    if split == "dev":
        raise CorpusError(
            "cad_nli's dev part lies inside e-SNLI dev; use split='validation', cut from train."
        )
    check_split("cad_nli", split, ("train", "validation", "test"))
    if split == "test":
        return tuple(map(_pair, read_tsv(data_file("cad_nli", "all_combined_test.tsv", folder))))
    rows = tuple(map(_pair, read_tsv(data_file("cad_nli", "all_combined_train.tsv", folder))))
    held_out = {
        i for i in range(0, len(rows), _BLOCK) if id_fraction(f"{i // _BLOCK}", salt="cad") < 0.1
    }
    validation = tuple(row for i, row in enumerate(rows) if i - i % _BLOCK in held_out)
    if split == "validation":
        return validation
    used = {text for row in validation for text in (row.premise, row.hypothesis)}
    return tuple(row for row in rows if not used & {row.premise, row.hypothesis})


def med(*, folder: Folder = None) -> tuple[Entailment, ...]:
    """Monotonicity Entailment Dataset (Yanaka et al., 2019), CC BY-SA: a test set.

    Its labels are entailment and neutral; `kind` is its genre, `crowd:downward_monotone` etc.
    """
    return tuple(
        Entailment(row["sentence1"], row["sentence2"], _label(row["gold_label"]), row["genre"])
        for row in read_tsv(data_file("med", "MED.tsv", folder))
    )


def breaking_nli(*, folder: Folder = None) -> tuple[Entailment, ...]:
    """Breaking NLI (Glockner et al., ACL 2018), CC BY-SA: a test set that swaps single words.

    `kind` is the kind of word: colors, antonyms, numbers, and so on.
    """
    path = data_file("breaking_nli", "breaking_nli_dataset.zip", folder)
    return tuple(
        Entailment(row["sentence1"], row["sentence2"], _label(row["gold_label"]), row["category"])
        for _, lines in read_zipped(path, under="data/dataset", ending=".jsonl")
        for row in map(json.loads, lines)
    )


def _pair(row: dict[str, Any]) -> Entailment:
    return Entailment(row["sentence1"], row["sentence2"], _label(row["gold_label"]))


def _label(text: str) -> Label:
    match text:
        case "entailment" | "neutral" | "contradiction":
            return text
    raise CorpusError(f"{text!r} is no entailment label: entailment, neutral or contradiction.")
