"""What a front costs: one batch with a mixture per row, against a merged model per point.

    OMP_NUM_THREADS=1 python benchmarks/weights_rows.py

Two random adapters of rank 16 on every linear map of the reference model, 11 points between them,
every point asked the same prompts. Costs do not depend on the adapters' numbers. The arms
alternate in one process, and the median over rounds is reported. CPU time is the measure, because
other programs on a shared machine do not count in it; wall time stands beside it.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from valign.control import Adapter, LowRank, WeightsControl
from valign.corpora import load_corpus
from valign.lm import HostModel, generate
from valign.values import Profile
from valign.world import reference_path

POINTS, RANK, ANSWER = 11, 16, 24
PROMPTS = (4, 32)
BATCH = 64

Arm = Callable[[], None]


def adapter(lm: HostModel, name: str, seed: int) -> Adapter:
    """Random factors on every linear map of the blocks."""
    rng = torch.Generator().manual_seed(seed)
    factors = {}
    for module, linear in lm.model.named_modules():
        if type(linear) is torch.nn.Linear and module != "lm_head":
            factors[module] = LowRank(
                torch.randn(RANK, linear.in_features, generator=rng) / linear.in_features**0.5,
                torch.randn(linear.out_features, RANK, generator=rng) * 0.02,
                scale=2.0,
            )
    return Adapter(name, factors)


def arms(lm: HostModel, points: list[WeightsControl], prompts: list[str]) -> dict[str, Arm]:
    """Ways to answer every prompt at every point; all make the same number of tokens."""
    options = dict(max_new_tokens=ANSWER, batch_size=BATCH)
    rows = [(prompt, point) for point in points for prompt in prompts]

    def one_batch() -> None:
        generate(lm, [p for p, _ in rows], [c for _, c in rows], **options)

    def point_by_point() -> None:
        for point in points:
            generate(lm, prompts, point, **options)

    @torch.no_grad()
    def merged() -> None:
        before = {m: lm.model.get_submodule(m).weight.clone() for m in points[0].modules}
        for point in points:
            for module, weight in before.items():
                left, right = point.mixed(module)
                delta = (left.float() @ right.float()).to(weight)
                lm.model.get_submodule(module).weight.copy_(weight + delta)
            generate(lm, prompts, **options)
        for module, weight in before.items():
            lm.model.get_submodule(module).weight.copy_(weight)

    def plain() -> None:
        generate(lm, [p for p, _ in rows], **options)

    return {
        "a mixture per row, all points in one call": one_batch,
        "a mixture per call": point_by_point,
        "a merged model per point": merged,
        "no weights at all, all rows in one call": plain,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    chosen = options.parse_args()
    lm = HostModel.load(reference_path())
    lm.stop_ids = frozenset()  # answers never end early, so that all arms make the same tokens
    corpus = load_corpus("world")
    pair = adapter(lm, "one", 0), adapter(lm, "two", 1)
    base = WeightsControl(
        target=Profile.of(corpus.system), adapters=pair, weights={"one": 1.0, "two": 1.0}
    )
    points = [base.with_weights({"one": i / 10, "two": 1 - i / 10}) for i in range(POINTS)]
    lines = []
    for count in PROMPTS:
        prompts = [dilemma.text for dilemma in corpus.dilemmas[:count]]
        runs = arms(lm, points, prompts)
        cpu: dict[str, list[float]] = {name: [] for name in runs}
        wall: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(chosen.rounds):
            for name, run in runs.items():
                began = time.process_time(), time.perf_counter()
                run()
                cpu[name].append(time.process_time() - began[0])
                wall[name].append(time.perf_counter() - began[1])
        tokens = count * POINTS * ANSWER
        least = statistics.median(cpu["a mixture per row, all points in one call"])
        for name in runs:
            own = statistics.median(cpu[name])
            lines.append(
                f"| {count} | {name} | {own:.2f} | {own / least:.2f} | {tokens / own:.0f} | "
                f"{statistics.median(wall[name]):.2f} |"
            )
    head = f"""# A front in one batch

Made by `OMP_NUM_THREADS=1 python benchmarks/weights_rows.py --rounds {chosen.rounds}`.

Python {platform.python_version()}, torch {torch.__version__}, transformers \
{transformers.__version__}; {platform.machine()}, one thread, float32. The machine was shared with
other heavy work: CPU time is the measure, wall time stands beside it.

{POINTS} points between two adapters of rank {RANK} on every linear map of the reference model
({sum(p.numel() for p in lm.model.parameters()) / 1e6:.1f}M parameters); {ANSWER} tokens per
answer, batches of up to {BATCH} rows. "Merged" adds each point's change to the weights in place and
generates plainly; loading a model per point would come on top. Ratio: CPU time by that of the
first row of its block.

| prompts | what | CPU seconds per front | ratio | tokens per CPU second | wall seconds |
|---|---|---|---|---|---|
"""
    chosen.out.write_text(head + "\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
