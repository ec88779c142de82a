"""One door to all corpora: the bundled texts, the generated world, the user's files."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from valign.corpora.errors import CorpusError
from valign.corpora.own import read_file, read_folder
from valign.corpora.table import read_table
from valign.corpora.types import Corpus, FaultyRewrite, Rewrite, Shift
from valign.values import Profile, ValueSystem, load_system

_VALUETEXTS = Path(str(resources.files("valign.corpora") / "data" / "valuetexts"))


def available_corpora() -> tuple[str, ...]:
    """Names that `load_corpus` knows."""
    return ("valuetexts", "world")


def load_corpus(
    source: str | Path = "valuetexts", *, system: str | ValueSystem = "schwartz10", seed: int = 0
) -> Corpus:
    """Texts to fit on.

    Args:
        source: `valuetexts` (the bundled texts), `world` (generated texts whose values are known),
            a folder with `pairs`, `dilemmas`, `answers` and `neutral` files (`.jsonl` or `.csv`,
            whichever are there), or one such file. Names go before folders; write
            `./world` for a folder of that name.
        system: the values that a folder or a file speaks of; the named corpora bring their own.
        seed: of the generated world; other corpora have none.

    The columns are those of the bundled files: pairs have `value`, `positive`, `negative` and
    optionally `prompt`, `context`, `also`; dilemmas `value`, `text` and optionally `context`,
    `pole`; answers `answer` and optionally `prompt`, `labels` (in CSV: `power=-1,security=1`);
    neutral texts `prompt` and optionally `answer`. `id` is optional, unique where given. Further
    columns are not used; `Corpus.notes` names them.

    Raises:
        CorpusError: no such corpus, or wrong rows (file, line, column, what was expected).
    """
    if source == "valuetexts":
        return read_folder(_VALUETEXTS, load_system("schwartz10"), "valuetexts")
    if source == "world":
        from valign.world.corpus import world_corpus  # valign.world builds on this package

        return world_corpus(seed)
    path = Path(source)
    values = system if isinstance(system, ValueSystem) else load_system(system)
    if path.is_dir():
        return read_folder(path, values, path.resolve().name)
    if path.is_file():
        return read_file(path, values)
    near = difflib.get_close_matches(str(source), available_corpora(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise CorpusError(
        f"No corpus, folder or file {str(source)!r}.{hint} "
        f"Bundled: {', '.join(available_corpora())}."
    )


def load_rewrites() -> tuple[Rewrite, ...]:
    """The bundled answers with facts, each retold under other values, well and badly."""
    system = load_system("schwartz10")
    return tuple(
        Rewrite(
            id=row["id"],
            prompt=row["prompt"],
            source=row["source"],
            facts=tuple(row["facts"]),
            target=Profile.from_mapping(system, row["target"]),
            rewrite=row["rewrite"],
            bad=tuple(FaultyRewrite(bad["text"], bad["fault"]) for bad in row["bad_rewrites"]),
        )
        for row in (r.cells for r in read_table(_VALUETEXTS / "rewrites.jsonl"))
    )


def load_shifts() -> tuple[Shift, ...]:
    """The bundled requests for another slant, each with the shift of values it asks for."""
    system = load_system("schwartz10")
    return tuple(
        Shift(row["id"], row["instruction"], Profile.from_mapping(system, row["shift"]))
        for row in (r.cells for r in read_table(_VALUETEXTS / "shifts.jsonl"))
    )
