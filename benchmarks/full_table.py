"""The table of every method on the reference model: ten targets, three seeds, three doses.

    python benchmarks/full_table.py --out runs/full-table

runs the study `benchmarks/full_table.yaml` (`valign study`; interrupt it as you like, the same
command goes on) and writes `benchmarks/full_table.json` (every summary with its interval),
`benchmarks/full_table.md` (all doses) and the table in the README (the middle dose).
`--workers N` makes cells in N processes. `--only sft simpo` measures these methods and puts their
rows into the committed table: a row depends on its own cells alone. It is refused where the rows
that every study measures (none, random, prompt) do not come out as committed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import yaml

from valign.report import markdown_table
from valign.study.results import Results

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
STUDY = HERE / "full_table.yaml"
TABLE = HERE / "full_table.json"
COLUMNS = ("gain", "gain_held_out", "leakage", "excess_leakage", "facts_wrong", "fluency",
           "neutral_unchanged")  # fmt: skip
ROUNDING = 0.05
"""Another processor rounds otherwise, which changes an answer now and then: how much of an interval
the rows that every study measures may move by."""
MARKS = re.compile(r"(<!-- table:begin -->\n).*?(<!-- table:end -->)", re.S)


def slim(results: Results) -> Results:
    """The results without what stands target by target; a study's own folder keeps that."""
    empty = {"targets": [], "c": [], "shift": [], "group_leakage": []}
    blocks = [block.model_copy(update=empty) for block in results.blocks]
    command = "python benchmarks/full_table.py"
    return results.model_copy(
        update={"blocks": blocks, "curves": [], "samples": [], "command": command}
    )


def only(methods: Collection[str], path: Path) -> Path:
    """The study of these methods alone, written to `path`."""
    study = yaml.safe_load(STUDY.read_text("utf-8"))
    study["methods"] = [m for m in study["methods"] if named(m) in methods]
    missing = set(methods) - {named(m) for m in study["methods"]}
    if missing:
        sys.exit(f"Not in {STUDY.name}: {', '.join(sorted(missing))}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(study, sort_keys=False), "utf-8")
    return path


def named(method: str | dict) -> str:
    """A method's name in a study, without its settings."""
    return method if isinstance(method, str) else next(iter(method))


def merged(committed: Results, new: Results) -> Results:
    """The committed table with the new rows, in the order of the study."""
    ours = [block for block in new.blocks if block.role == "method"]
    for block in new.blocks:
        if block.role != "method":
            key = (block.method, block.dose)
            (same,) = (b for b in committed.blocks if (b.method, b.dose) == key)
            for column in COLUMNS:
                was, now = getattr(same.summary, column), getattr(block.summary, column)
                if was and now and abs(was.value - now.value) > ROUNDING * (was.high - was.low):
                    sys.exit(
                        f"{block.method}: {column} is {now.value:.4f}, in the committed table "
                        f"{was.value:.4f}. Rows of two such runs are no table; run all of it."
                    )
    order = ["none", "random", "prompt"]
    order += [named(m) for m in yaml.safe_load(STUDY.read_text("utf-8"))["methods"]]
    replaced = {block.method for block in ours}
    blocks = [b for b in committed.blocks if b.method not in replaced] + ours
    blocks.sort(key=lambda block: order.index(block.method.partition("[")[0]))
    return committed.model_copy(update={"blocks": blocks})


def note(results: Results) -> str:
    """What the numbers of a table rest on."""
    prompts = results.settings["prompts_per_seed"]
    return (
        f"Reference model, {len(results.system.values)} targets, {len(results.seeds)} seeds of "
        f"{prompts} prompts a target, sampled at temperature 1, dose in nats, 95 % intervals in "
        "brackets; `prompt` is a ceiling here, since the model was trained on instructions."
    )


def readme_table(results: Results) -> str:
    """The table between the README's marks: every method at the middle dose."""
    doses = sorted({block.dose for block in results.blocks if block.dose is not None})
    wanted = (None, doses[len(doses) // 2])
    blocks = [block for block in results.blocks if block.dose in wanted]
    shown = results.model_copy(update={"blocks": blocks})
    return f"{markdown_table(shown, columns=COLUMNS)}\n{note(results)}\n"


def page(results: Results) -> str:
    """`full_table.md`: every method at every dose."""
    versions = ", ".join(f"{k} {v}" for k, v in results.versions.items())
    return (
        f"# {results.title}\n\n`python benchmarks/full_table.py`\n\n"
        f"{markdown_table(results, columns=COLUMNS)}\n{note(results)}\n\nVersions: {versions}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/full-table"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="METHOD")
    given = parser.parse_args()
    study = only(given.only, given.out.with_suffix(".yaml")) if given.only else STUDY
    command = [sys.executable, "-m", "valign", "study", str(study), "--out", str(given.out),
               "--workers", str(given.workers)]  # fmt: skip
    if subprocess.run(command).returncode not in (0, 1):  # 1: cells that valign refused, listed
        sys.exit("The study did not end; the same command goes on.")
    results = slim(Results.read(given.out / "results" / "reference.json"))
    if given.only:
        results = merged(Results.read(TABLE), results)
    results.write(TABLE)
    TABLE.with_suffix(".md").write_text(page(results), "utf-8")
    text = README.read_text("utf-8")
    README.write_text(MARKS.sub(lambda m: m[1] + readme_table(results) + m[2], text), "utf-8")


if __name__ == "__main__":
    main()
