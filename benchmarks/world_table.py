"""Seven methods on the reference model with many answers: ten targets, three seeds, one dose.

    python benchmarks/world_table.py --out runs/world-table

writes `benchmarks/world_table.json` (the results in full) and `benchmarks/world_table.md` (the
table and the command). 240 prompts a target bring the noise of a cell of the leakage matrix to
about one point; `full_table.py` has every method at three doses with fewer prompts. Interrupt it
as you like: the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from valign.cli.running import carry_out, summary
from valign.lm import HostModel
from valign.report import markdown_table
from valign.study.plan import MethodChoice, Plan
from valign.study.world import WorldBattery
from valign.values import Profile
from valign.world import reference_path

HERE = Path(__file__).parent
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


def plan(battery: WorldBattery) -> Plan:
    """What is measured: 240 prompts a target, answered once each."""
    return Plan(
        methods=METHODS,
        targets=tuple(Profile.from_mapping(battery.system, {v: 1.0}) for v in battery.system.names),
        doses=(0.2,),
        seeds=(0, 1, 2),
        prompts=80,
        neutral=10,
        temperature=1.0,
        batch_size=128,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/world-table"))
    given = parser.parse_args()
    battery = WorldBattery()
    lm = HostModel.load(reference_path())
    lm.name = "reference"  # the same on every machine
    results = carry_out(
        lm, plan(battery), battery, given.out, title="Methods on the reference model"
    )
    results.command = "python benchmarks/world_table.py"
    summary(results, given.out)
    results.write(HERE / "world_table.json")
    versions = ", ".join(f"{k} {v}" for k, v in results.versions.items())
    (HERE / "world_table.md").write_text(
        f"# {results.title}\n\n`{results.command}`\n\n"
        f"{markdown_table(results, columns=COLUMNS)}\n"
        f"Ten targets, {len(results.seeds)} seeds, {results.blocks[0].summary.gain.n} prompts a "
        "target, sampled at temperature 1, dose in nats, 95 % intervals in brackets.\n\n"
        f"Versions: {versions}.\n",
        "utf-8",
    )


if __name__ == "__main__":
    main()
