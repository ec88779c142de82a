"""What profiles per request cost in vLLM: tokens a second, paired with a stock engine.

    python benchmarks/vllm_throughput.py --rounds 7 --out benchmarks/vllm_throughput.md

A random Llama of 50M parameters. Three engines live side by side, each in a process of its own
with one thread: stock (valign hidden), one with 16 additive profiles at seven blocks, one with 16
push profiles at neurons and blocks. A round runs every setting once, each right after a stock run,
in an order that rotates. Reported is the ratio to that stock run, in wall time and in CPU time:
on a machine that others use too, CPU time is the steadier of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {
    "idle plug-in": ("additive", "none"),
    "one profile": ("additive", "one"),
    "16 profiles": ("additive", "all"),
    "16 mixes of three": ("additive", "mixes"),
    "16 push profiles": ("push", "all"),
}
"""Row -> (engine, what its requests ask for)."""

REQUESTS, PROMPT, NEW = 16, 8, 24


def make_files(folder: Path) -> None:
    """The model and both bundles."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from valign.control import Edit, EditsControl, Site
    from valign.deploy.bundle import make_bundle, save_bundle
    from valign.values import Profile, load_system

    torch.manual_seed(0)
    width, neurons, layers = 512, 2048, 10
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=width, intermediate_size=neurons, num_hidden_layers=layers,
            num_attention_heads=8, num_key_value_heads=8, vocab_size=8192,
            max_position_embeddings=512, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    model.save_pretrained(folder / "model")
    target = Profile.of(load_system("schwartz10"), benevolence=1)

    def add(layer: int) -> Edit:
        return Edit(Site("resid", layer), "add", {"vector": torch.randn(width)})

    def push(kind: str, layer: int) -> Edit:
        weight = torch.randn(1, width if kind == "resid" else neurons)
        return Edit(
            Site(kind, layer), "push",
            dict(weight=weight, bias=torch.zeros(1), target=torch.full((1,), 3.0),
                 direction=weight / weight.pow(2).sum()),
        )  # fmt: skip

    bundles = {
        "additive": [[add(layer) for layer in range(2, 9)] for _ in range(16)],
        "push": [
            [push("neurons", n) for n in (3, 4, 5)] + [push("resid", n) for n in (4, 5, 6)]
            for _ in range(16)
        ],
    }
    about = dict(name="bench", fingerprint="", layers=layers, width=width, neurons=neurons)
    about["class"] = "LlamaForCausalLM"
    for name, profiles in bundles.items():
        controls = {
            f"p{n}": EditsControl(target=target, edits=tuple(edits))
            for n, edits in enumerate(profiles)
        }
        (folder / name).mkdir()
        made = make_bundle(controls, about, dict.fromkeys(controls, ""))
        save_bundle(made, folder / name)
    size = sum(p.numel() for p in model.parameters())
    (folder / "size").write_text(str(size))


def serve_runs(folder: Path, bundle: str, eager: bool) -> None:
    """Child: one engine; a line of standard input is one run, answered by one line."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
                   "VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # fmt: skip
    if bundle == "stock":
        hide_valign()
    else:
        os.environ["VALIGN_BUNDLE"] = str(folder / bundle)
    answers, sys.stdout = sys.stdout, sys.stderr
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder / "model"), dtype="float32", max_model_len=256, max_num_seqs=REQUESTS,
        kv_cache_memory_bytes=2**28, enforce_eager=eager, enable_prefix_caching=False,
        skip_tokenizer_init=True, disable_log_stats=True,
    )  # fmt: skip
    prompts = [
        {"prompt_token_ids": [(7 * r + 3 * t) % 8000 + 10 for t in range(PROMPT)]}
        for r in range(REQUESTS)
    ]

    def asked(what: str, r: int) -> dict | None:
        text = {
            "none": None, "one": "p0=0.5", "all": f"p{r}=0.5",
            "mixes": f"p{r}=0.5,p{(r + 1) % 16}=0.25,p{(r + 2) % 16}=0.25",
        }[what]  # fmt: skip
        return {"valign": text} if text else None

    def run(what: str) -> dict:
        settings = [
            SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, detokenize=False,
                           extra_args=asked(what, r))
            for r in range(REQUESTS)
        ]  # fmt: skip
        wall, cpu = time.perf_counter(), time.process_time()
        llm.generate(prompts, settings, use_tqdm=False)
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    run("none")
    print(json.dumps({"memory": banks_memory()}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(line.strip())), file=answers, flush=True)


def banks_memory() -> int:
    """Bytes the plug-in keeps on the device in this process."""
    from valign.deploy.vllm_plugin import steering

    return 0 if steering._current is None else steering._current.memory


def hide_valign() -> None:
    import importlib.metadata as metadata

    found = metadata.entry_points

    def without(**wanted):
        points = found(**wanted)
        return type(points)(p for p in points if p.name != "valign") if wanted else points

    metadata.entry_points = without


class Engine:
    """A child with one engine."""

    def __init__(self, folder: Path, bundle: str, eager: bool):
        command = [sys.executable, __file__, "--engine", bundle, "--folder", str(folder)]
        self._child = subprocess.Popen(
            command + ["--eager"] * eager, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=(folder / f"{bundle}.log").open("w"), text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1",
                 "VLLM_CACHE_ROOT": str(folder / "cache")},
        )  # fmt: skip
        self.memory = self._answer()["memory"]

    def _answer(self) -> dict:
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("an engine ended; see its log beside the model")
        return json.loads(line)

    def run(self, what: str) -> dict:
        self._child.stdin.write(what + "\n")
        self._child.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._child.stdin.close()
        self._child.wait(60)


def measure(folder: Path, rounds: int, eager: bool) -> dict:
    """Ratios to stock per setting, rates of stock, memory of the banks."""
    make_files(folder)
    engines = {name: Engine(folder, name, eager) for name in ("stock", "additive", "push")}
    ratios = {row: {"wall": [], "cpu": []} for row in SETTINGS}
    rates, loads = [], []
    try:
        for number in range(rounds):
            rows = list(SETTINGS)[number % len(SETTINGS) :] + list(SETTINGS)[
                : number % len(SETTINGS)
            ]  # fmt: skip
            for row in rows:
                engine, what = SETTINGS[row]
                first = (number + rows.index(row)) % 2  # who runs first alternates
                if first:
                    mine, stock = engines[engine].run(what), engines["stock"].run("none")
                else:
                    stock, mine = engines["stock"].run("none"), engines[engine].run(what)
                for clock in ("wall", "cpu"):
                    ratios[row][clock].append(stock[clock] / mine[clock])
                rates.append(REQUESTS * NEW / stock["wall"])
                loads.append(os.getloadavg()[0])
    finally:
        for engine in engines.values():
            engine.close()
    memory = {name: engine.memory for name, engine in engines.items()}
    return dict(ratios=ratios, rates=rates, loads=loads, memory=memory,
                parameters=int((folder / "size").read_text()))  # fmt: skip


def table(found: dict, *, rounds: int, eager: bool, command: str) -> str:
    """The page."""
    import torch
    import vllm

    def spread(values: list[float]) -> str:
        low, _, high = statistics.quantiles(values, n=4)
        return f"{statistics.median(values):.3f} ({low:.3f} to {high:.3f})"

    rows = "\n".join(
        f"| {row} | {spread(r['cpu'])} | {spread(r['wall'])} |"
        for row, r in found["ratios"].items()
    )
    memory = found["memory"]
    return f"""# vLLM: what profiles per request cost

`{command}`

Random Llama, {found["parameters"] / 1e6:.0f}M parameters, float32, one CPU thread,
{"eager" if eager else "compiled"}; {REQUESTS} requests at once, {PROMPT} prompt and {NEW} new
tokens each. Tokens a second as a ratio to a stock engine that ran right before or after; median
(quartiles) of {rounds} pairs. 1 is as fast as stock.

| | in CPU time | in wall time |
| --- | --- | --- |
{rows}

Stock: {statistics.median(found["rates"]):.0f} new tokens a second. The machine was shared with
other work: load {min(found["loads"]):.1f} to {max(found["loads"]):.1f} on {os.cpu_count()} cores,
so the quartiles say how far a ratio can be read. Banks and buffers:
{memory["additive"] / 2**20:.2f} MiB for 16 additive profiles at seven blocks,
{memory["push"] / 2**20:.2f} MiB for 16 push profiles at three blocks' neurons and three blocks.
vLLM {vllm.__version__}, torch {torch.__version__}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        serve_runs(given.folder, given.engine, given.eager)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.rounds, given.eager)
    command = f"python benchmarks/vllm_throughput.py --rounds {given.rounds}"
    page = table(
        found, rounds=given.rounds, eager=given.eager, command=command + " --eager" * given.eager
    )
    print(page)
    if given.out:
        given.out.write_text(page, "utf-8")
        given.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
