"""Where public data sets are read from: a local folder, or the Hub through `datasets`."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from valign.corpora.errors import CorpusError, MissingDataError

Rows = Iterator[dict[str, Any]]


def data_file(name: str, file: str, folder: str | Path | None) -> Path:
    """Path of one file of a set.

    Args:
        name: the set's own folder.
        file: the file in it, named as its authors name it.
        folder: the folder that holds the sets' folders, or the file itself; None reads the
            variable VALIGN_DATA.

    Raises:
        MissingDataError: no folder is known, or the file is not there.
    """
    root = folder or os.environ.get("VALIGN_DATA")
    if not root:
        raise MissingDataError(
            f"{name}: no data folder. Set VALIGN_DATA to the folder that holds {name}/{file}, "
            "or pass folder=."
        )
    if Path(root).is_file():
        return Path(root)
    path = Path(root) / name / file
    if not path.is_file():
        raise MissingDataError(f"{name}: expected the file {path}. Put it there, or pass folder=.")
    return path


def check_split(name: str, split: str, splits: Collection[str]) -> None:
    """Refuse a split that the set does not have.

    Raises:
        CorpusError: the message names the splits there are.
    """
    if split not in splits:
        raise CorpusError(f"{name} has no split {split!r}; it has: {', '.join(splits)}.")


def read_jsonl(path: Path) -> Rows:
    """Objects of a `.jsonl` or `.jsonl.gz` file."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def read_csv(path: Path) -> Rows:
    """Rows of a comma-separated file with a header."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def read_tsv(path: Path) -> Rows:
    """Rows of a tab-separated file with a header, where a quotation mark is a character."""
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def read_zipped(path: Path, *, under: str, ending: str) -> Iterator[tuple[str, io.TextIOWrapper]]:
    """(file name without ending, open text) of the files in one folder of an archive, by name."""
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.namelist()):
            if member.startswith(under) and member.endswith(ending):
                with archive.open(member) as file:
                    stem = member.removeprefix(under).removesuffix(ending)
                    yield stem, io.TextIOWrapper(file, encoding="utf-8", newline="")


def hub_rows(hub: str, split: str, *, config: str | None = None, folder: str | None = None) -> Rows:
    """Rows of a Hub data set.

    Args:
        hub: its id, such as `Anthropic/hh-rlhf`.
        split: the split, as the Hub names it.
        config: the configuration, where the data set has several.
        folder: a folder inside the data set, where it has no configurations.

    Raises:
        MissingDataError: the package `datasets` is not installed.
    """
    try:
        from datasets import load_dataset  # heavy, and only needed here
    except ImportError:
        raise MissingDataError(
            f"Reading {hub} from the Hub needs the package `datasets`: pip install 'valign[hub]'"
        ) from None
    yield from load_dataset(hub, config, split=split, data_dir=folder)
