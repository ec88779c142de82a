"""Malformed requests against a running `valign serve`: statuses, and the server's memory.

    python benchmarks/vllm_malformed.py http://127.0.0.1:8000 --pid PID [--count 2000]

The server is to be named `m` and to serve the profiles of tests/deploy/vllm_plugin. PID is the
server's; its children count too. Prints one line per hundred requests.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.deploy.vllm_plugin.fuzz import bodies


def memory(pid: int) -> float:
    """MiB of a process and its children."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return sum(p.memory_info().rss for p in family) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    seen: Counter[int] = Counter()
    with httpx.Client(base_url=given.url, timeout=120) as client:
        for number, body in enumerate(bodies(given.count, seed=1), start=1):
            path = "/v1/completions" if number % 2 else "/v1/chat/completions"
            response = client.post(path, content=body, headers={"content-type": "application/json"})
            seen[response.status_code] += 1
            if response.status_code >= 500:
                print(response.status_code, body[:500], response.text[:500])
            if number % 100 == 0:
                print(f"{number}: {dict(seen)}, {memory(given.pid):.1f} MiB", flush=True)
        alive = client.get("/health").status_code == 200
    print("alive" if alive else "DEAD")
    sys.exit(0 if alive and not any(status >= 500 for status in seen) else 1)


if __name__ == "__main__":
    main()
