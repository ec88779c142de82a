"""Fronts of mixtures on the reference model: MVA and what it competes with, from equal budgets.

    python benchmarks/mva_front.py --work runs/mva-front

writes `benchmarks/mva_front.json` and `.md` again after every cell. Interrupt it as you like: the
same command goes on; finished adapters and answers are not made again. `--sizes 3` makes the cells
of three values alone; the tables of the other sizes stay as they were written.

Every method may spend as many steps as there are values times STEPS (a training that two methods
share is made once). Those with an adapter a value search the same mixtures; those with one
adapter for a trade-off search its scale. Mixtures are found on search prompts and judged on others.
Recipe and prompts were set on the world's training half; nothing was chosen by judged answers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from mva_front_cells import Bench
from mva_front_numbers import summarised
from mva_front_page import RECORD, page, record
from mva_front_plan import STAGES


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/mva-front"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3], help="numbers of values")
    parser.add_argument("--summarise", action="store_true", help="only write the tables again")
    given = parser.parse_args()
    began = time.time()
    if not given.summarise:
        bench = Bench(given.work)
        for sources, k in STAGES:
            for seed in given.seeds if k in given.sizes else ():
                for source in sources:
                    bench.cell(source, k, seed)
                    print(f"{time.time() - began:7.0f} s  {source}, {k}, {seed}", flush=True)
                    tables(given.work, given.sizes)
    tables(given.work, given.sizes)


def tables(work: Path, sizes: list[int]) -> None:
    """Write what the finished cells of these sizes say over what was written before."""
    before = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    blocks = dict(before.get("blocks", {}))
    for k in sizes:
        cells = {}
        for path in sorted((work / "cells").glob(f"*-{k}-[0-9]*.json")):
            source, _, seed = path.stem.rsplit("-", 2)
            cells[source, int(seed)] = json.loads(path.read_text("utf-8"))
        if cells:
            blocks[str(k)] = summarised(cells, k)
    RECORD.write_text(json.dumps(record(blocks), indent=1, default=str) + "\n", "utf-8")
    RECORD.with_suffix(".md").write_text(page(blocks), "utf-8")


if __name__ == "__main__":
    main()
