"""The table of methods on the reference model: ten targets, three seeds, one dose.

    python benchmarks/world_table.py --out runs/world-table

writes `benchmarks/world_table.json` (the results in full), `benchmarks/world_table.md` (the table
and the command) and the table in the README. Interrupt it as you like: the same command goes on.
`--curves` measures the dose curves instead, with fewer answers a point, into
`benchmarks/world_curves.json` and `.md`.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from valign.cli.running import carry_out, summary
from valign.lm import HostModel
from valign.report import markdown_table
from valign.study.plan import MethodChoice, Plan
from valign.study.world import WorldBattery
from valign.values import Profile
from valign.world import reference_path

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
METHODS = (
    MethodChoice("none"),
    MethodChoice("random"),
    MethodChoice("logit-bias"),
    MethodChoice("prompt"),
    MethodChoice("caa"),
    MethodChoice("caa", {"specific": True}),
    MethodChoice("conva"),
    MethodChoice("neva"),
)
"""`caa[specific=True]` shares NeVA's contrast with other values and stays in the residual stream:
it tells what the contrast does from what the neurons do."""

COLUMNS = ("gain", "gain_held_out", "gain_bound", "leakage", "excess_leakage", "nlr", "fluency",
           "facts_wrong", "neutral_unchanged")  # fmt: skip
MARKS = re.compile(r"(<!-- table:begin -->\n).*?(<!-- table:end -->)", re.S)


def plan(battery: WorldBattery, *, curves: bool) -> Plan:
    """What is measured: 240 prompts a target, answered once each."""
    targets = tuple(Profile.from_mapping(battery.system, {v: 1.0}) for v in battery.system.names)
    without_strength = ("none", "prompt")
    return Plan(
        methods=tuple(m for m in METHODS if not curves or m.name not in without_strength),
        targets=targets,
        doses=(0.05, 0.1, 0.2, 0.4, 0.8) if curves else (0.2,),
        seeds=(0,) if curves else (0, 1, 2),
        prompts=40 if curves else 80,
        neutral=10,
        temperature=1.0,
        batch_size=128,
    )


def readme_table(results) -> str:  # type: ignore[no-untyped-def]
    """The table between the README's marks."""
    note = (
        f"Reference model, {len(results.blocks[0].targets)} targets, "
        f"{len(results.seeds)} seeds, {results.blocks[0].summary.gain.n} prompts a target, "
        "sampled at temperature 1, dose in nats, 95 % intervals in brackets; `prompt` is a ceiling "
        "here, since the model was trained on instructions."
    )
    return f"{markdown_table(results, columns=COLUMNS)}\n{note}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--curves", action="store_true")
    given = parser.parse_args()
    name = "world_curves" if given.curves else "world_table"
    out = given.out or Path("runs") / name.replace("_", "-")
    battery = WorldBattery()
    lm = HostModel.load(reference_path())
    lm.name = "reference"  # the same on every machine
    chosen = plan(battery, curves=given.curves)
    results = carry_out(lm, chosen, battery, out, title="Methods on the reference model")
    results.command = f"python benchmarks/world_table.py{' --curves' if given.curves else ''}"
    summary(results, out)
    results.write(HERE / f"{name}.json")
    table = readme_table(results)
    (HERE / f"{name}.md").write_text(
        f"# {results.title}\n\n`{results.command}`\n\n{table}\nVersions: "
        + ", ".join(f"{k} {v}" for k, v in results.versions.items())
        + ".\n",
        "utf-8",
    )
    if not given.curves:
        text = README.read_text("utf-8")
        README.write_text(MARKS.sub(lambda m: m[1] + table + m[2], text), "utf-8")


if __name__ == "__main__":
    main()
