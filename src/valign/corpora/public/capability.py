"""Public sets about capability: truth, knowledge, grammar, fluent text, instructions."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path

from valign.corpora.public.source import (
    check_split,
    data_file,
    hub_rows,
    read_csv,
    read_jsonl,
    read_zipped,
)

Folder = str | Path | None


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question; `correct` holds the positions of the right choices."""

    subject: str
    question: str
    choices: tuple[str, ...]
    correct: tuple[int, ...]


def truthfulqa(
    split: str = "mc1", *, folder: Folder = None, hub: str | None = None
) -> tuple[Choice, ...]:
    """TruthfulQA (Lin et al., 2022), Apache-2.0. Splits: mc1 (one true choice), mc2 (several).

    The first choice of mc1 is always the true one: shuffle before asking.

    Args:
        hub: read from the Hub instead, `truthfulqa/truthful_qa`.
    """
    check_split("truthfulqa", split, ("mc1", "mc2"))
    key = f"{split}_targets"
    if hub:
        marked = [
            (row["question"], tuple(row[key]["choices"]), tuple(row[key]["labels"]))
            for row in hub_rows(hub, "validation", config="multiple_choice")
        ]
    else:
        path = data_file("truthfulqa", "mc_task.json", folder)
        marked = [
            (row["question"], tuple(row[key]), tuple(row[key].values()))
            for row in json.loads(path.read_text("utf-8"))
        ]
    return tuple(
        Choice("truthfulqa", question, choices, tuple(i for i, m in enumerate(marks) if m))
        for question, choices, marks in marked
    )


_MMLU_SPLITS = {"dev": "dev", "validation": "val", "test": "test"}


def mmlu(
    split: str = "test", *, folder: Folder = None, hub: str | None = None
) -> tuple[Choice, ...]:
    """MMLU (Hendrycks et al., 2021), MIT: 57 subjects, four choices. Splits: dev, validation, test.

    Args:
        hub: read from the Hub instead, `cais/mmlu`.
    """
    check_split("mmlu", split, _MMLU_SPLITS)
    if hub:
        return tuple(
            Choice(row["subject"], row["question"], tuple(row["choices"]), (row["answer"],))
            for row in hub_rows(hub, split, config="all")
        )
    part = _MMLU_SPLITS[split]
    path = data_file("mmlu", "mmlu.zip", folder)
    return tuple(
        Choice(subject, question, tuple(choices), ("ABCD".index(answer),))
        for subject, lines in read_zipped(path, under=f"data/{part}/", ending=f"_{part}.csv")
        for question, *choices, answer in csv.reader(lines)
    )


@dataclass(frozen=True)
class MinimalPair:
    """A well-formed sentence and an ill-formed one that differ in one point of grammar."""

    paradigm: str
    field: str
    good: str
    bad: str


def blimp(
    paradigm: str | None = None, *, folder: Folder = None, hub: str | None = None
) -> tuple[MinimalPair, ...]:
    """BLiMP (Warstadt et al., 2020), CC BY 4.0: 67 paradigms of 1,000 pairs; None reads them all.

    Args:
        hub: read one paradigm from the Hub instead, `nyu-mll/blimp`.
    """
    if hub:
        rows = list(hub_rows(hub, "train", config=paradigm))
    else:
        path = data_file("blimp", "BLiMP.zip", folder)
        known, rows = [], []
        for stem, lines in read_zipped(path, under="data/", ending=".jsonl"):
            known.append(stem)
            if paradigm in (None, stem):
                rows += map(json.loads, lines)
        check_split("blimp", paradigm or known[0], known)
    return tuple(
        MinimalPair(row["UID"], row["field"], row["sentence_good"], row["sentence_bad"])
        for row in rows
    )


@dataclass(frozen=True)
class Problem:
    """A sum told in words; `answer` is its number, `solution` the way there."""

    question: str
    answer: float
    solution: str


def gsm8k(
    split: str = "test", *, folder: Folder = None, hub: str | None = None
) -> tuple[Problem, ...]:
    """GSM8K (Cobbe et al., 2021), MIT: school mathematics. Splits: train, test.

    Args:
        hub: read from the Hub instead, `openai/gsm8k`.
    """
    check_split("gsm8k", split, ("train", "test"))
    rows = (
        hub_rows(hub, split, config="main")
        if hub
        else read_jsonl(data_file("gsm8k", f"{split}.jsonl", folder))
    )
    found = []
    for row in rows:
        solution, _, number = row["answer"].rpartition("####")
        found.append(
            Problem(row["question"], float(number.strip().replace(",", "")), solution.strip())
        )
    return tuple(found)


_ARTICLE = re.compile(r"^ = [^=].*[^=] = $", re.MULTILINE)


def wikitext2(
    split: str = "test", *, folder: Folder = None, hub: str | None = None
) -> tuple[str, ...]:
    """WikiText-2 (Merity et al., 2016), CC BY-SA: whole articles. Splits: validation, test.

    Text is tokenised and has `<unk>` for rare words, as published.

    Args:
        hub: read from the Hub instead, `Salesforce/wikitext`.
    """
    files = {"validation": "valid.txt", "test": "test.txt"}
    check_split("wikitext2", split, files)
    if hub:
        text = "".join(row["text"] for row in hub_rows(hub, split, config="wikitext-2-v1"))
    else:
        text = data_file("wikitext2", files[split], folder).read_text("utf-8-sig")
    starts = [match.start() for match in _ARTICLE.finditer(text)]
    return tuple(text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True))


@dataclass(frozen=True)
class Instruction:
    """An instruction, the input it works on (often empty), and an answer by a person."""

    id: str
    instruction: str
    input: str
    output: str
    category: str = ""


def self_instruct(split: str = "seed", *, folder: Folder = None) -> tuple[Instruction, ...]:
    """Self-Instruct (Wang et al., 2023), Apache-2.0. Splits: seed (tasks), user (evaluation).

    Of each task the first instance; `category` is its name or its application.
    """
    files = {"seed": "seed_tasks.jsonl", "user": "user_oriented_instructions.jsonl"}
    check_split("self_instruct", split, files)
    column = "name" if split == "seed" else "motivation_app"
    return tuple(
        Instruction(row["id"], row["instruction"], case["input"], case["output"], row[column])
        for row in read_jsonl(data_file("self_instruct", files[split], folder))
        for case in row["instances"][:1]
    )


def dolly_sample(*, folder: Folder = None, hub: str | None = None) -> tuple[Instruction, ...]:
    """A thousand rows of databricks-dolly-15k, CC BY-SA 3.0.

    Args:
        hub: read all 15,000 from the Hub instead, `databricks/databricks-dolly-15k`.
    """
    rows = (
        hub_rows(hub, "train")
        if hub
        else read_csv(data_file("dolly_sample", "databricks_dolly_15k.csv", folder))
    )
    return tuple(
        Instruction(
            f"dolly-{number}", row["instruction"], row["context"], row["response"], row["category"]
        )
        for number, row in enumerate(rows, 1)
    )
