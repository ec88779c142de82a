"""Public sets about values: arguments, dialogues, inventories, dilemmas, word lists."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from valign.corpora.public.source import check_split, data_file, read_csv, read_jsonl, read_tsv
from valign.corpora.types import Answer
from valign.values import load_system

Folder = str | Path | None


@dataclass(frozen=True)
class Argument:
    """A premise for or against a conclusion, with the value categories people saw in it."""

    id: str
    conclusion: str
    stance: Literal["in favor of", "against"]
    premise: str
    labels: tuple[str, ...]


_ARGUMENT_FILES = {
    "train": "training",
    "validation": "validation",
    "test": "test",
    "zhihu": "validation-zhihu",
}


def valueeval23(split: str = "train", *, folder: Folder = None) -> tuple[Argument, ...]:
    """Touché23-ValueEval (SemEval-2023 Task 4), CC BY 4.0; 20 categories, spelled as in the data.

    `valign.values.convert(scores, "valueeval23", "schwartz10")` carries category scores to the ten
    values. Splits: train, validation, test, and `zhihu` (a further validation set).
    """
    check_split("valueeval23", split, _ARGUMENT_FILES)
    stem = _ARGUMENT_FILES[split]
    labels = {
        row.pop("Argument ID"): tuple(category for category, mark in row.items() if mark == "1")
        for row in read_tsv(data_file("valueeval23", f"labels-{stem}.tsv", folder))
    }
    rows = read_tsv(data_file("valueeval23", f"arguments-{stem}.tsv", folder))
    return tuple(
        Argument(
            row["Argument ID"],
            row["Conclusion"],
            row["Stance"],
            row["Premise"],
            labels[row["Argument ID"]],
        )
        for row in rows
    )


_FULCRA_LABEL = re.compile(r"([a-z-]+):\s*(\+?1|-1)")


def fulcra(*, folder: Folder = None) -> tuple[Answer, ...]:
    """Value FULCRA's published part (Yao et al., NAACL 2024), MIT: answers with signed labels.

    Labels that cannot be read (`=1`, `1+`), name none of the ten values, or come with both signs
    are left out.
    """
    rows = read_jsonl(data_file("fulcra", "trustworthy_data.jsonl", folder))
    found = []
    for number, row in enumerate(rows, 1):
        prompt, answer = row["dialogue"].removeprefix("Human: ").split("\nBob:", 1)
        labels = fulcra_labels(row["value_types"])
        found.append(Answer(f"fulcra-{number}", answer.strip(), labels, prompt.strip()))
    return tuple(found)


def fulcra_labels(marks: list[str]) -> tuple[tuple[str, float], ...]:
    """Signed labels out of FULCRA's marks such as `security: +1`; see `fulcra`."""
    known = load_system("schwartz10")
    found: dict[str, set[float]] = {}
    for mark in marks:
        read = _FULCRA_LABEL.fullmatch(mark.strip())
        if read and read[1] in known:
            found.setdefault(read[1], set()).add(float(read[2]))
    return tuple((value, signs.pop()) for value, signs in found.items() if len(signs) == 1)


@dataclass(frozen=True)
class InventoryItem:
    """One item of a published inventory; `agreement` is +1 if agreeing speaks for the value."""

    inventory: str
    item: str
    value: str
    agreement: Literal[-1, 1]
    question: str


def valuebench(*, folder: Folder = None) -> tuple[InventoryItem, ...]:
    """ValueBench's items (ACL 2024), MIT; the inventories' authors may hold rights in items."""
    return tuple(
        InventoryItem(
            row["questionnaire"],
            row["item"],
            row["value"],
            1 if float(row["agreement"]) > 0 else -1,
            row["question"],
        )
        for row in read_csv(data_file("valuebench", "value_orientation.csv", folder))
    )


@dataclass(frozen=True)
class TopicQuestion:
    """A yes-or-no question on a topic; `options` tells what each answer says about the topic.

    Questions with the same `original` are paraphrases of each other.
    """

    topic: str
    question: str
    original: str
    is_rephrased: bool
    options: tuple[tuple[str, Literal["supports", "opposes"]], ...]


_TOPIC_FILES = {
    "us": "controversial_english_us",
    "china": "controversial_english_china",
    "germany": "controversial_english_germany",
    "japan": "controversial_english_japan",
    "uncontroversial": "uncontroversial_english_us",
}


def valueconsistency(split: str = "us", *, folder: Folder = None) -> tuple[TopicQuestion, ...]:
    """ValueConsistency (Moore et al., 2024), MIT, English questions.

    Splits: controversial topics of us, china, germany, japan; `uncontroversial` topics of the US.
    Answers in `options` are in lower case.
    """
    check_split("valueconsistency", split, _TOPIC_FILES)
    return tuple(
        TopicQuestion(
            row["topic_english"],
            row["question"],
            row["original"],
            bool(row["rephrase"]),
            tuple((answer.lower(), stance) for answer, stance in row["options"].items()),
        )
        for row in read_jsonl(data_file("valueconsistency", f"{_TOPIC_FILES[split]}.jsonl", folder))
    )


@dataclass(frozen=True)
class Portrait:
    """A sketch of a person to whom one of the ten values is important."""

    statement: str
    value: str


def portraits(*, folder: Folder = None) -> tuple[Portrait, ...]:
    """The 21 portrait items that come with ValueConsistency, MIT."""
    return tuple(
        Portrait(row["statement"], row["schwartz_value"])
        for row in read_jsonl(data_file("valueconsistency", "pvq_english.jsonl", folder))
    )


@dataclass(frozen=True)
class DailyDilemma:
    """An everyday situation that ends in a question of what to do."""

    id: str
    situation: str
    text: str


def daily_dilemmas(*, folder: Folder = None) -> tuple[DailyDilemma, ...]:
    """DailyDilemmas (Chiu et al., ICLR 2025), CC BY 4.0."""
    return tuple(
        DailyDilemma(row["idx"], row["basic_situation"], row["dilemma_situation"])
        for row in read_csv(data_file("daily_dilemmas", "dilemma.csv", folder))
    )


def personal_values_dictionary(*, folder: Folder = None) -> dict[str, tuple[str, ...]]:
    """Personal Values Dictionary (Ponizovskiy et al., 2020), MIT: value -> its English words."""
    path = data_file("personal_values_dictionary", "en.json", folder)
    return {
        value.lower(): tuple(words) for value, words in json.loads(path.read_text("utf-8")).items()
    }


@dataclass(frozen=True)
class Statement:
    """A first-person statement; `matches` says whether it fits the disposition."""

    disposition: str
    statement: str
    question: str
    matches: bool
    confidence: float


def persona_evals(disposition: str, *, folder: Folder = None) -> tuple[Statement, ...]:
    """Model-written persona statements (Perez et al., 2022), CC BY 4.0, for one disposition.

    `disposition` is the file's name, such as `risk-averse` or `openness`.
    """
    return tuple(
        Statement(
            disposition,
            row["statement"],
            row["question"],
            row["answer_matching_behavior"].strip() == "Yes",
            row["label_confidence"],
        )
        for row in read_jsonl(data_file("persona_evals", f"{disposition}.jsonl", folder))
    )
