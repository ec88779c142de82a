"""Preference data of others as contrast pairs: hh-rlhf, PKU-SafeRLHF, FULCRA; a filter.

Each reader takes a `.jsonl` or `.jsonl.gz` file in the set's own fields, or its id on the Hub, and
gives pairs whose positive side is the preferred answer. `preference_corpus` makes of them what
methods are fitted on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from valign.corpora.errors import CorpusError
from valign.corpora.public.source import Rows, hub_rows, read_jsonl
from valign.corpora.public.values import fulcra_labels
from valign.corpora.types import Corpus, Dilemma, Pair
from valign.values import ValueSystem, load_system

FORMATS = ("hh-rlhf", "pku-saferlhf", "fulcra")
_ASSISTANT = "\n\nAssistant:"


def read_preferences(
    form: str, source: str | Path, *, split: str = "train", limit: int | None = None
) -> Corpus:
    """A corpus of preferences by the name of its format.

    Args:
        form: one of `FORMATS`. For hh-rlhf, `source` may name several parts with their values:
            `helpful=PATH,harmless=PATH`.
        source: a file, or the id of a Hub data set.
        split: of a Hub data set.
        limit: most pairs per value.

    Raises:
        CorpusError: an unknown format, a field that is not there, or no pair at all.
    """
    if form not in FORMATS:
        raise CorpusError(f"No preference format {form!r}; there are: {', '.join(FORMATS)}.")
    if form == "hh-rlhf":
        pairs: list[Pair] = []
        for part in str(source).split(","):
            value, equals, place = part.partition("=")
            if not equals:
                raise CorpusError(
                    f"hh-rlhf files do not say which value they are for. Write {part!r} as "
                    "helpful=PATH or harmless=PATH; several with commas."
                )
            pairs += hh_rlhf_pairs(place, value, split=split)
    elif form == "pku-saferlhf":
        pairs = pku_saferlhf_pairs(source, split=split)
    else:
        pairs = fulcra_pairs(source, split=split)
    system = load_system("schwartz10" if form == "fulcra" else "hh")
    return preference_corpus(pairs, system, name=form, limit=limit)


def preference_corpus(
    pairs: Iterable[Pair], system: ValueSystem, *, name: str, limit: int | None = None
) -> Corpus:
    """A corpus of preference pairs; its dilemmas are their prompts, each once.

    Raises:
        CorpusError: no pairs.
    """
    kept: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        system.index(pair.value)
        if limit is None or len(kept[pair.value]) < limit:
            kept[pair.value].append(pair)
    chosen = [pair for rows in kept.values() for pair in rows]
    if not chosen:
        raise CorpusError(f"{name} holds no preference between two answers to one prompt.")
    asked = {pair.prompt: pair for pair in chosen if pair.prompt}
    dilemmas = tuple(Dilemma(f"d-{p.id}", p.value, text) for text, p in asked.items())
    return Corpus(system=system, name=name, pairs=tuple(chosen), dilemmas=dilemmas)


def hh_rlhf_pairs(source: str | Path, value: str, *, split: str = "train") -> list[Pair]:
    """Anthropic's format: `chosen` and `rejected` are whole dialogues that share their beginning.

    Args:
        value: what this part is about, `helpful` or `harmless`. On the Hub the part is the folder
            `<value>-base`.

    Dialogues that differ before their last answer are left out.
    """
    found = []
    rows = _rows(source, split, folder=f"{value}-base")
    for number, row in enumerate(_having(rows, ("chosen", "rejected"), source), 1):
        prompt, _, chosen = row["chosen"].rpartition(_ASSISTANT)
        other, _, rejected = row["rejected"].rpartition(_ASSISTANT)
        chosen, rejected = chosen.strip(), rejected.strip()
        if prompt == other and chosen and rejected and chosen != rejected:
            asked = prompt.strip().removeprefix("Human:").strip()
            found.append(Pair(f"{value}-{number}", value, chosen, rejected, prompt=asked))
    return found


def pku_saferlhf_pairs(source: str | Path, *, split: str = "train") -> list[Pair]:
    """PKU-SafeRLHF's format: two preferences a row.

    `better_response_id` becomes a pair for `helpful`, `safer_response_id` one for `harmless`; where
    the two differ they are in conflict.
    """
    marks = {"helpful": "better_response_id", "harmless": "safer_response_id"}
    fields = ("prompt", "response_0", "response_1", *marks.values())
    found = []
    for number, row in enumerate(_having(_rows(source, split), fields, source), 1):
        answers = (row["response_0"].strip(), row["response_1"].strip())
        if not all(answers) or answers[0] == answers[1]:
            continue
        for value, mark in marks.items():
            best = int(row[mark])
            found.append(
                Pair(f"{value}-{number}", value, answers[best], answers[1 - best],
                     prompt=row["prompt"].strip())
            )  # fmt: skip
    return found


def fulcra_pairs(source: str | Path, *, split: str = "train") -> list[Pair]:
    """FULCRA's format: single answers with signed labels (`dialogue`, `value_types`).

    Two answers to one prompt are a pair for every value that one of them is labelled higher on. The
    published part holds one answer a prompt, and so no pair.
    """
    by_prompt: dict[str, list[tuple[str, dict[str, float]]]] = defaultdict(list)
    for row in _having(_rows(source, split), ("dialogue", "value_types"), source):
        prompt, _, answer = row["dialogue"].removeprefix("Human: ").partition("\nBob:")
        by_prompt[prompt.strip()].append((answer.strip(), dict(fulcra_labels(row["value_types"]))))
    found = []
    for number, (prompt, answers) in enumerate(by_prompt.items(), 1):
        for i, (one, a) in enumerate(answers):
            for j, (two, b) in enumerate(answers[:i]):
                for value in sorted(a.keys() | b.keys()):
                    gap = a.get(value, 0) - b.get(value, 0)
                    if gap and one != two:
                        best, worst = (one, two) if gap > 0 else (two, one)
                        name = f"{value}-{number}-{i}-{j}"
                        found.append(Pair(name, value, best, worst, prompt=prompt))
    return found


def consistency(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """VC-Soup's value consistency of preferences (arXiv 2603.18113): cos(gap, 1), shape (n,).

    Args:
        chosen, rejected: rewards, (n, values), on comparable scales.

    A pair whose chosen answer is better in every value by the same amount scores 1; one that buys
    one value with another scores near 0 or less; one without any gap scores 0.
    """
    gap = np.asarray(chosen, float) - np.asarray(rejected, float)
    norm = np.linalg.norm(gap, axis=1) * np.sqrt(gap.shape[1])
    return np.divide(gap.sum(1), norm, out=np.zeros(len(gap)), where=norm > 0)


def consistent(
    pairs: Sequence[Pair], chosen: np.ndarray, rejected: np.ndarray, *, least: float = 0.0
) -> list[Pair]:
    """The pairs whose consistency is at least `least` (0: ours, untuned)."""
    keep = consistency(chosen, rejected) >= least
    return [pair for pair, kept in zip(pairs, keep, strict=True) if kept]


def _rows(source: str | Path, split: str, *, folder: str | None = None) -> Rows:
    path = Path(source).expanduser()
    if path.is_file():
        return read_jsonl(path)
    if path.suffix in (".jsonl", ".gz") or str(source).startswith((".", "/", "~")):
        raise CorpusError(f"No file {source}. Expected .jsonl or .jsonl.gz, or a Hub id.")
    return hub_rows(str(source), split, folder=folder)


def _having(rows: Rows, fields: Sequence[str], source: str | Path) -> Rows:
    for number, row in enumerate(rows, 1):
        lacking = [field for field in fields if field not in row]
        if lacking:
            raise CorpusError(
                f"{source} row {number} has no {', '.join(lacking)}; it has "
                f"{', '.join(row)}. Is this the right format?"
            )
        yield row
