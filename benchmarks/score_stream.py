"""What `valign score` of a long file takes: lines a second, and memory.

    OMP_NUM_THREADS=1 python benchmarks/score_stream.py

writes `benchmarks/score_stream.{md,json}`. Lines of ten words, made from a seed, go through the
word-list detector to a file of JSON, each length in a process of its own. Memory is the peak of
that process (VmHWM of Linux). CPU seconds are the measure, because other programs on a shared
machine do not count in them; wall time stands beside them. About two minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LENGTHS = (20_000, 1_000_000)
WORDS = (
    "we should help our family and keep a safe home from power but money is fun while rules and "
    "custom matter to people who want new ideas of their own"
).split()

MEASURED = """
import json, sys, time
began = time.perf_counter()
from valign.cli import app
app(sys.argv[1:], standalone_mode=False)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps({"peak_mib": int(peak) / 1024, "wall_seconds": time.perf_counter() - began,
                  "cpu_seconds": time.process_time()}), file=sys.stderr)
"""


def score(n: int, folder: Path) -> dict[str, float]:
    """Score a file of n lines; checks that as many came out."""
    draw = random.Random(0)
    given, told = folder / f"{n}.txt", folder / f"{n}.jsonl"
    with given.open("w") as file:
        file.writelines(" ".join(draw.choices(WORDS, k=10)) + "\n" for _ in range(n))
    command = [sys.executable, "-c", MEASURED, "score", "--detector", "wordlist", "--json",
               "--file", str(given)]  # fmt: skip
    with told.open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
    with told.open() as lines:
        assert sum(1 for _ in lines) == n
    found = json.loads(done.stderr.splitlines()[-1])
    return {"lines": n, **found, "lines_per_cpu_second": n / found["cpu_seconds"],
            "lines_per_second": n / found["wall_seconds"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, nargs="*", default=LENGTHS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [score(n, Path(folder)) for n in asked.lines]
    lines = [
        "# Scoring a long file",
        "",
        "`OMP_NUM_THREADS=1 python benchmarks/score_stream.py`",
        "",
        "`valign score --detector wordlist --json --file FILE`, lines of ten words; one run each, "
        "a process each, start of the program included. Lines a second of the machine depend on "
        "what else it does; lines a second of CPU time do not.",
        "",
        "| lines | lines per CPU second | lines per second | peak memory (MiB) |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['lines']:,} | {row['lines_per_cpu_second']:,.0f} | "
            f"{row['lines_per_second']:,.0f} | {row['peak_mib']:.1f} |"
        )
    (HERE / "score_stream.md").write_text("\n".join(lines) + "\n", "utf-8")
    machine = {"python": platform.python_version(), "machine": platform.machine()}
    (HERE / "score_stream.json").write_text(
        json.dumps({"rows": rows, **machine}, indent=1) + "\n", "utf-8"
    )


if __name__ == "__main__":
    main()
