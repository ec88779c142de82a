"""Corpora about harm, for SVGT or any other method: the world's, and the public sets by path or id.

All speak of the system `hh` and its value `harmless`: an answer is harmless (+1) or not (-1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from valign.corpora import CorpusError
from valign.corpora.public import fulcra, hh_rlhf
from valign.corpora.public.source import hub_rows, read_csv, read_jsonl
from valign.corpora.types import Answer, Corpus, Dilemma, Pair
from valign.values import load_system

FORMATS = ("wildguardmix", "beavertails", "hh-rlhf", "fulcra")
_SAFE, _HARMFUL = (("harmless", 1.0),), (("harmless", -1.0),)


def world_harm(seed: int = 0, *, requests: int = 160, split: str = "train") -> Corpus:
    """The world's harmful requests, declined and helped with, and look-alikes that are helped with.

    Args:
        requests: of either kind.
        split: `train` or `heldout` wordings.
    """
    from valign.world import World
    from valign.world.tables import table

    world, spec = World(split=split), table("harm")
    pairs, answers = [], []
    for number, item in enumerate(world.harmful(requests, seed=seed)):
        facts, kind = item.truth.facts, item.truth.scenario.partition(":")[0]
        careful = spec["careful"][number % len(spec["careful"])]
        offer = spec["offers"][number // len(spec["careful"]) % len(spec["offers"])]
        pairs.append(
            Pair(
                f"{split}-{seed}-{number}",
                "harmless",
                positive=f"{careful} {offer}".format(**facts),
                negative=" ".join(spec["requests"][kind]["steps"]).format(**facts),
                prompt=item.messages[-1]["content"],
            )
        )
    for number, item in enumerate(world.benign_lookalikes(requests, seed=seed)):
        prompt = item.messages[-1]["content"]
        answers.append(Answer(f"{split}-{seed}-b{number}", item.answer, _SAFE, prompt))
    dilemmas = [
        Dilemma(f"{split}-{seed}-d{number}", "harmless", item.messages[-1]["content"])
        for number, item in enumerate(world.harmful(48, seed=seed + 1))
    ]
    return Corpus(
        system=load_system("hh"),
        name="world-harm",
        pairs=tuple(pairs),
        answers=tuple(answers),
        dilemmas=tuple(dilemmas),
    )


def public_harm(
    format: str, source: str | Path | None = None, *, split: str = "train", most: int | None = None
) -> Corpus:
    """A corpus from a public set in its authors' own fields.

    Args:
        format: `wildguardmix` (prompt, response, response_harm_label), `beavertails` (prompt,
            response, is_safe), `hh-rlhf` (chosen, rejected: a contrast pair each), or `fulcra`
            (ten Schwartz values, not harm).
        source: a file (`.jsonl`, `.jsonl.gz`, `.csv`, `.parquet`), or a Hub id; None reads
            hh-rlhf and fulcra from the folder VALIGN_DATA names.
        split: of the Hub set (BeaverTails calls its own `30k_train` and `330k_train`).
        most: rows at most.

    Raises:
        CorpusError: an unknown format, or rows without its fields.
        MissingDataError: the data is not there.
    """
    if format not in FORMATS:
        raise CorpusError(f"Unknown format {format!r}; there are: {', '.join(FORMATS)}.")
    if source is None:
        if format == "fulcra":
            return Corpus(system=load_system("schwartz10"), name="fulcra", answers=fulcra()[:most])
        if format == "hh-rlhf":
            found = [(p.prompt, p.chosen, p.rejected) for p in hh_rlhf()[:most]]
            return _preferences(found)
        raise CorpusError(
            f"{format} needs a source: a file, or a Hub id such as allenai/wildguardmix."
        )
    rows = _rows(source, split, "wildguardtrain" if format == "wildguardmix" else None)
    if format == "hh-rlhf":
        return _preferences(_halves(rows), most)
    if format == "fulcra":
        raise CorpusError("fulcra is read from the folder VALIGN_DATA names; leave source out.")
    read = _wildguard if format == "wildguardmix" else _beavertails
    answers: dict[tuple[str, str], Answer] = {}
    for number, row in enumerate(rows, 1):
        try:
            prompt, text, harmful = read(row)
        except KeyError as error:
            raise CorpusError(
                f"Row {number} of {source} has no field {error}; it has {', '.join(row)}. Is it "
                f"really {format}?"
            ) from None
        if text and harmful is not None:
            labels = _HARMFUL if harmful else _SAFE
            answers.setdefault((prompt, text), Answer(f"{format}-{number}", text, labels, prompt))
        if most is not None and len(answers) >= most:
            break
    return Corpus(system=load_system("hh"), name=format, answers=tuple(answers.values()))


def _rows(source: str | Path, split: str, config: str | None) -> Iterator[dict[str, Any]]:
    path = Path(source)
    if not path.is_file():
        if path.suffix in (".jsonl", ".csv", ".parquet", ".gz"):
            raise CorpusError(f"No such file: {source}")
        yield from hub_rows(str(source), split, config=config)
    elif path.suffix == ".parquet":
        from pyarrow.parquet import read_table

        yield from read_table(path).to_pylist()
    elif path.suffix == ".csv":
        yield from read_csv(path)
    else:
        yield from read_jsonl(path)


def _wildguard(row: dict[str, Any]) -> tuple[str, str, bool | None]:
    label = row["response_harm_label"]  # absent where only the prompt was labelled
    known = {"harmful": True, "unharmful": False}.get(str(label))
    return row["prompt"], row["response"] or "", known


def _beavertails(row: dict[str, Any]) -> tuple[str, str, bool | None]:
    return row["prompt"], row["response"], str(row["is_safe"]).lower() != "true"


def _halves(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    mark = "\n\nAssistant:"
    for row in rows:
        prompt, _, chosen = row["chosen"].rpartition(mark)
        other, _, rejected = row["rejected"].rpartition(mark)
        if prompt == other:
            yield prompt.strip(), chosen.strip(), rejected.strip()


def _preferences(found: Iterable[tuple[str, str, str]], most: int | None = None) -> Corpus:
    pairs = [
        Pair(f"hh-{number}", "harmless", chosen, rejected, prompt=prompt)
        for number, (prompt, chosen, rejected) in enumerate(found, 1)
        if chosen and rejected and chosen != rejected
    ]
    return Corpus(system=load_system("hh"), name="hh-rlhf", pairs=tuple(pairs[:most]))
