"""Pairs the entailment model is trained and tested on.

Public pairs keep their own labels. Own pairs are made from the project's value texts by edits
whose effect on the label is known (drop a sentence, change a number, negate a verb): the public
sets are image captions and never show a whole answer as premise. The rewrites, which test
consistency, are never read here.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from valign.detect.entail import sentences


class Pair(NamedTuple):
    """A premise, a hypothesis, and `entailment`, `neutral` or `contradiction`."""

    premise: str
    hypothesis: str
    label: str


def text_key(text: str) -> str:
    """Letters and digits only, lower case: equal for texts that differ in form alone."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def esnli(folder: Path, split: str) -> list[Pair]:
    """The SNLI pairs of e-SNLI, `dev` or `test`."""
    columns = [
        (folder / "esnli" / f"{name}.{split}").read_text(encoding="utf-8").splitlines()
        for name in ("s1", "s2", "labels")
    ]
    return [Pair(p.strip(), h.strip(), y.strip()) for p, h, y in zip(*columns, strict=True)]


def cad_nli(folder: Path, split: str) -> list[Pair]:
    """Counterfactually augmented NLI (Kaushik et al. 2020): `train`, `dev` or `test`."""
    text = (folder / "cad_nli" / f"all_combined_{split}.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    return [Pair(r["sentence1"].strip(), r["sentence2"].strip(), r["gold_label"]) for r in rows]


def med(folder: Path) -> list[Pair]:
    """Monotonicity entailment (Yanaka et al. 2019); two labels, entailment and neutral."""
    text = (folder / "med" / "MED.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [Pair(r["sentence1"], r["sentence2"], r["gold_label"]) for r in rows]


def breaking_nli(folder: Path) -> list[Pair]:
    """Breaking NLI (Glockner et al. 2018): one word of the premise is replaced."""
    with zipfile.ZipFile(folder / "breaking_nli" / "breaking_nli_dataset.zip") as archive:
        lines = archive.read("data/dataset.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [
        Pair(r["sentence1"], r["sentence2"], r["gold_label"])
        for r in rows
        if r["gold_label"] in ("entailment", "neutral", "contradiction")
    ]


def without_overlap(pairs: list[Pair], tests: Iterable[Pair]) -> list[Pair]:
    """Pairs whose premise stands in no test pair (compared by `text_key`)."""
    taken = {text_key(pair.premise) for pair in tests}
    return [pair for pair in pairs if text_key(pair.premise) not in taken]


def split_blocks(pairs: list[Pair], n_blocks: int, *, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Validation taken from CAD train in whole families: five rows edit one original pair."""
    blocks = [pairs[i : i + 5] for i in range(0, len(pairs), 5)]
    held = set(random.Random(seed).sample(range(len(blocks)), n_blocks))
    train = [pair for i, block in enumerate(blocks) if i not in held for pair in block]
    return train, [pair for i, block in enumerate(blocks) if i in held for pair in block]


_NUMBER = re.compile(r"\b\d{1,4}\b")
_WORDS = "two three four five six seven eight nine ten twelve twenty thirty forty fifty".split()
_NEGATE = [
    (re.compile(rf"\b{word}\b(?! not)(?!n't)"), f"{word} not")
    for word in ("is", "are", "was", "were", "can", "will", "should", "would", "has to", "must")
]
_OPPOSITES = [
    ("always", "never"), ("before", "after"), ("more", "fewer"), ("most", "few"),
    ("open", "closed"), ("opens", "closes"), ("first", "last"), ("early", "late"),
    ("cheap", "expensive"), ("free", "paid"), ("all", "none of"), ("both", "neither of"),
    ("high", "low"), ("higher", "lower"), ("large", "small"), ("long", "short"),
    ("hot", "cold"), ("warm", "cool"), ("new", "old"), ("morning", "evening"),
    ("left", "right"), ("up", "down"), ("with", "without"), ("inside", "outside"),
    ("Monday", "Thursday"), ("Tuesday", "Saturday"), ("Wednesday", "Sunday"),
    ("Friday", "Tuesday"), ("June", "October"), ("May", "November"), ("March", "August"),
    ("north", "south"), ("east", "west"), ("won", "lost"), ("accept", "refuse"),
    ("allowed", "forbidden"), ("together", "alone"), ("same", "different"),
    ("easy", "hard"), ("safe", "dangerous"), ("start", "stop"), ("keep", "drop"),
]  # fmt: skip
_OPPOSITE = {a: b for pair in _OPPOSITES for a, b in (pair, pair[::-1])}


def contradicted(sentence: str, rng: random.Random) -> str | None:
    """The sentence with a number, a polarity or a pole changed; None where none can be."""
    edits: list[str] = []
    for match in _NUMBER.finditer(sentence):
        old = int(match[0])
        new = rng.choice([x for x in (old + 1, old * 2, old + 10, max(1, old // 2)) if x != old])
        edits.append(sentence[: match.start()] + str(new) + sentence[match.end() :])
    for word in _WORDS:
        for match in re.finditer(rf"\b{word}\b", sentence):
            new_word = rng.choice([w for w in _WORDS if w != word])
            edits.append(sentence[: match.start()] + new_word + sentence[match.end() :])
    for pattern, new_text in _NEGATE:
        if verb := pattern.search(sentence):
            edits.append(sentence[: verb.start()] + new_text + sentence[verb.end() :])
    for match in re.finditer(r"[A-Za-z]+", sentence):
        if match[0] in _OPPOSITE:
            edits.append(sentence[: match.start()] + _OPPOSITE[match[0]] + sentence[match.end() :])
    return rng.choice(edits) if edits else None


def shortened(sentence: str, rng: random.Random) -> str | None:
    """The sentence without its last clause or clauses; None where there is no clause to drop."""
    cuts = [m.start() for m in re.finditer(r"(?:,|;| and| which| so that| because) ", sentence)]
    cuts = [c for c in cuts if sentence[:c].count(" ") >= 3]
    return sentence[: rng.choice(cuts)].rstrip(",;") + "." if cuts else None


def own_pairs(texts: list[str], *, n: int, seed: int, words: int = 40) -> list[Pair]:
    """Pairs from own texts: parts are entailed, additions are neutral, changes contradict.

    Args:
        texts: texts of two sentences and more, questions not counted; others are passed over.
        n: number of pairs.
        words: longest premise.
    """
    rng = random.Random(seed)
    plain = [[s for s in sentences(t.replace('"', "")) if not s.endswith("?")] for t in texts]
    split = [s for s in plain if len(s) >= 2]
    pool = [s for text in split for s in text]
    pairs: dict[tuple[str, str], Pair] = {}
    tries = 0
    while len(pairs) < n and tries < 40 * n:
        tries += 1
        text = rng.choice(split)
        start = rng.randrange(len(text))
        window = text[start : start + rng.choice((1, 2, 2, 3))]
        chosen = rng.choice(window)
        rest = [s for s in text if s not in window]
        if rng.random() < 0.3:
            rng.shuffle(window)
        short, other = shortened(chosen, rng), contradicted(chosen, rng)
        tail = shortened(rng.choice(pool), rng)
        made: list[Pair] = []
        premise = " ".join(window)
        match rng.randrange(7):
            case 0:
                made.append(Pair(premise, chosen, "entailment"))
            case 1 if short:
                made.append(Pair(premise, short, "entailment"))
            case 2 if short:
                cut = " ".join(short if s == chosen else s for s in window)
                made.append(Pair(cut, chosen, "neutral"))
            case 3 if rest:
                made.append(Pair(premise, rng.choice(rest), "neutral"))
            case 4 if tail:
                added = chosen.rstrip(".!?") + f", and {tail[0].lower()}{tail[1:]}"
                made.append(Pair(premise, added, "neutral"))
            case 5 | 6 if other:
                made.append(Pair(premise, other, "contradiction"))
                swapped = " ".join(other if s == chosen else s for s in window)
                made.append(Pair(swapped, chosen, "contradiction"))
        for pair in made:
            if len(pair.premise.split()) <= words and len(pair.hypothesis.split()) <= words:
                pairs[pair.premise, pair.hypothesis] = pair
    return list(pairs.values())[:n]


def own_texts(folder: Path) -> list[str]:
    """Texts of the project's value texts, without the rewrites."""
    texts: list[str] = []
    for name, columns in (
        ("answers", ("answer",)),
        ("neutral", ("answer",)),
        ("dilemmas", ("text",)),
        ("pairs", ("positive", "negative")),
    ):
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts += [row[column] for column in columns]
    return texts
