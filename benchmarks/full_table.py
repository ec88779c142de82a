"""The table of every method on the reference model: ten targets, three seeds, three doses.

    python benchmarks/full_table.py --out runs/full-table

runs the study `benchmarks/full_table.yaml` (`valign study`; interrupt it as you like, the same
command goes on) and writes `benchmarks/full_table.json` (every summary with its interval),
`benchmarks/full_table.md` (all doses) and the table in the README (the middle dose).
`--workers N` makes cells in N processes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from valign.report import markdown_table
from valign.study.results import Results

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
STUDY = HERE / "full_table.yaml"
COLUMNS = ("gain", "gain_held_out", "leakage", "excess_leakage", "facts_wrong", "fluency",
           "neutral_unchanged")  # fmt: skip
MARKS = re.compile(r"(<!-- table:begin -->\n).*?(<!-- table:end -->)", re.S)


def slim(results: Results) -> Results:
    """The results without what stands target by target; a study's own folder keeps that."""
    empty = {"targets": [], "c": [], "shift": [], "group_leakage": []}
    blocks = [block.model_copy(update=empty) for block in results.blocks]
    command = "python benchmarks/full_table.py"
    return results.model_copy(
        update={"blocks": blocks, "curves": [], "samples": [], "command": command}
    )


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
    given = parser.parse_args()
    command = [sys.executable, "-m", "valign", "study", str(STUDY), "--out", str(given.out),
               "--workers", str(given.workers)]  # fmt: skip
    if subprocess.run(command).returncode not in (0, 1):  # 1: cells that valign refused, listed
        sys.exit("The study did not end; the same command goes on.")
    results = slim(Results.read(given.out / "results" / "reference.json"))
    results.write(HERE / "full_table.json")
    (HERE / "full_table.md").write_text(page(results), "utf-8")
    text = README.read_text("utf-8")
    README.write_text(MARKS.sub(lambda m: m[1] + readme_table(results) + m[2], text), "utf-8")


if __name__ == "__main__":
    main()
