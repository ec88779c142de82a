"""Value drift: what tuning on value-neutral facts does to a profile, and what VISA leaves alone.

    OMP_NUM_THREADS=1 python benchmarks/visa_drift.py --work WORK

Copies of the reference model learn to write notes for the calendar (SFT, an adapter on all linear
layers): texts with name, day, time, place and price and without a value. All answer the same
held-out dilemmas (sampled), notes and other neutral questions (greedy), read by the world's exact
parser. The drift is that of `valign drift`, with dilemmas for respondents: raw shifts, with
intervals for all ten values at once. Under VISA the host answers and then rewrites its answers
towards security. Writes `visa_drift.md` and `visa_drift.json` beside this file; finished adapters
and answers lie in WORK and are read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import trl

from valign.control import Control
from valign.corpora.types import Pair
from valign.lm import HostModel, generate
from valign.measure.bootstrap import Resampling, mean, weighted_mean
from valign.measure.drift import Drift, drift
from valign.measure.permutation import outward
from valign.methods import get_method
from valign.methods.mva.combine import lone
from valign.methods.mva.samples import tokenised
from valign.methods.mva.training import Recipe, train_adapter
from valign.study.survey import as_json
from valign.values import Profile, load_system
from valign.world import World, WorldJudge, reference_path
from valign.world.corpus import world_corpus
from valign.world.items import Item
from valign.world.judge import answered

HERE = Path(__file__).parent
SYSTEM = load_system("schwartz10")
TOWARD = "security"
KINDS = ("dilemmas", "notes", "others")
DRAWS = 2
"""Sampled answers to each dilemma: greedy ones of the reference model express no value at all."""


def is_note(item: Item) -> bool:
    return len(item.truth.asked) == 5


def questions(asked: argparse.Namespace) -> dict[str, list[Item]]:
    """What everybody is asked, of held-out scenarios."""
    world = World(split="heldout")
    neutral = world.neutral(10 * asked.facts, seed=900)
    return {
        "dilemmas": world.dilemmas(asked.dilemmas, seed=901),
        "notes": list(islice(filter(is_note, neutral), asked.facts)),
        "others": list(islice((i for i in neutral if not is_note(i)), asked.facts)),
    }


def pairs(n: int) -> list[Pair]:
    """Notes to learn; SFT reads the positive side only, and the value is only a label."""
    items = islice(filter(is_note, World().neutral(10 * n)), n)
    return [
        Pair(f"note-{k}", TOWARD, i.answer, "-", prompt=i.messages[-1]["content"])
        for k, i in enumerate(items)
    ]


def control(lm: HostModel, arm: str, asked: argparse.Namespace) -> Control | None:
    if arm == "host":
        return None
    if arm == "visa":
        target = Profile.of(SYSTEM, **{TOWARD: 1.0})
        return get_method("visa", max_new_tokens=90).fit(lm, world_corpus(pairs=10), target)
    rate = arm.removeprefix("notes at ")
    recipe = Recipe(
        loss="sft", rank=16, alpha=16, steps=asked.steps, batch_size=asked.batch, rate=float(rate),
        save_every=10, seed=0,
    )  # fmt: skip
    samples = tokenised(lm, pairs(asked.steps * asked.batch))
    columns = torch.zeros(len(samples), 2)  # SFT refers to nothing
    made = train_adapter(lm, samples, columns, recipe, label="notes", folder=asked.work)
    return lone(SYSTEM, made)


def texts(lm: HostModel, arm: str, known: dict[str, list[Item]], asked: Any) -> dict[str, list]:
    """The arm's answers, each kind made once."""
    found: dict[str, list] = {}
    for kind, items in known.items():
        file = asked.work / f"{arm}, {kind}.json"
        if not file.is_file():
            acting, prompts = control(lm, arm, asked), [i.messages[-1]["content"] for i in items]
            how = [dict(seed=s, temperature=1.0) for s in range(DRAWS)]
            made = [
                generate(lm, prompts, acting, max_new_tokens=90, **one).texts  # type: ignore
                for one in (how if kind == "dilemmas" else [{}])
            ]
            part = file.with_suffix(".part")
            part.write_text(json.dumps(made if kind == "dilemmas" else made[0]))
            part.replace(file)
        found[kind] = json.loads(file.read_text())
    return found


def weights_hash(lm: HostModel) -> str:
    """First 16 hex digits over all of the host's weights, bit by bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--steps", type=int, default=24)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--rates", type=float, nargs="+", default=[3e-3])
    options.add_argument("--dilemmas", type=int, default=60)
    options.add_argument("--facts", type=int, default=40)
    asked = options.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    lm = HostModel.load(str(reference_path()))
    before, known = weights_hash(lm), questions(asked)
    arms = ["host", *(f"notes at {rate:g}" for rate in asked.rates), "visa"]
    said: dict[str, dict[str, list]] = {}
    for arm in arms:
        said[arm] = texts(lm, arm, known, asked)
        print(arm, flush=True)
        again = generate(
            lm, [i.messages[-1]["content"] for i in known["notes"][:20]], max_new_tokens=90
        ).texts
        same = again == said["host"]["notes"][:20] and weights_hash(lm) == before
        write(said, known, asked, host_unchanged=same)


def write(
    said: dict[str, dict[str, list]],
    known: dict[str, list[Item]],
    asked: argparse.Namespace,
    *,
    host_unchanged: bool,
) -> None:
    judge = WorldJudge()
    read = {
        arm: {k: judge.read_all(known[k], own[k]) for k in KINDS[1:]} for arm, own in said.items()
    }
    told = {
        arm: [judge.read_all(known["dilemmas"], texts) for texts in own["dilemmas"]]
        for arm, own in said.items()
    }
    draws = {k: Resampling.of(len(known[k]), seed=0, n_boot=2000) for k in KINDS}
    scores = {  # (dilemmas, values, draws)
        arm: np.array([[r.scores for r in row] for row in rows]).transpose(1, 2, 0)
        for arm, rows in told.items()
    }
    kept: dict[str, Any] = {}
    rows = []
    for arm, own in read.items():
        moved: Drift = drift(
            scores["host"], scores[arm], np.eye(len(SYSTEM)), draws["dilemmas"], middle=0.0,
        )  # fmt: skip
        right = {
            k: np.array(
                [float(answered(i.truth, r)) for i, r in zip(known[k], own[k], strict=True)]
            )
            for k in ("notes", "others")
        }
        found = {k: mean(v[:, None], draws[k]).at(0) for k, v in right.items()}
        same = {
            k: float(np.mean(np.array(said[arm][k]) == np.array(said["host"][k]))) for k in KINDS
        }
        off = np.array([[float(r.facts_wrong > 0) for r in row] for row in told[arm]]).mean(axis=0)
        found["facts_off"] = mean(off[:, None], draws["dilemmas"]).at(0)
        which = [
            f"{v} {e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"
            for v, e in zip(SYSTEM.names, moved.raw_band.tolist(), strict=True)
            if e.low > 0 or e.high < 0
        ]
        change = (scores[arm] - scores["host"]).mean(axis=2)
        size = outward(
            draws["dilemmas"].estimate(
                lambda w, c=change: np.sqrt((weighted_mean(w, c) ** 2).mean(axis=1))
            ),
            bottom=0, top=np.inf,
        )  # fmt: skip
        cells = [str(size), "; ".join(which) or "none",
                 *(str(found[k]) for k in ("notes", "others", "facts_off")),
                 " / ".join(f"{same[k]:.2f}" for k in KINDS)]  # fmt: skip
        rows.append(f"| {arm} | {' | '.join(cells)} |")
        kept[arm] = as_json(
            dict(size=size, values=dict(zip(SYSTEM.names, moved.raw_band.tolist(), strict=True)),
                 same=same, **found)
        )  # fmt: skip
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/visa_drift.py --work WORK --steps {asked.steps} "
        f"--batch {asked.batch} --rates {' '.join(f'{r:g}' for r in asked.rates)} "
        f"--dilemmas {asked.dilemmas} --facts {asked.facts}"
    )
    lines = [
        "# Value drift from value-neutral facts", "", f"`{command}`", "",
        f"SFT of {asked.steps} steps of {asked.batch} texts, rank 16, at the rate named (ours, "
        f"untuned), one seed. {asked.dilemmas} held-out dilemmas, {asked.facts} notes and "
        f"{asked.facts} other neutral questions, {DRAWS} sampled answers to a dilemma, greedy ones "
        "to the others, exact parser. Size: root mean square of "
        "the shifts of ten values' mean scores, above 0 by chance alone; a value has moved where "
        "its interval, for all values at once, leaves out 0. Same: share of answers letter for "
        "letter those of the host, to dilemmas / notes / others. 95 % bootstrap intervals over "
        "questions, which do "
        f"not cover the training's luck. Python {platform.python_version()}, torch "
        f"{torch.__version__}, trl "
        f"{trl.__version__}, transformers {transformers.__version__}.", "",
        "| model | size of the drift | moved | notes right | others right | dilemmas with a wrong "
        "fact | same |", "| --- | --- | --- | --- | --- | --- | --- |", *rows, "",
        f"`visa`: the texts after the host has rewritten its own answers towards {TOWARD}, without "
        "training it to. The host itself, asked again after all of these: weights bit for bit and "
        f"20 answers letter for letter the same: {'yes' if host_unchanged else 'no'}.",
    ]  # fmt: skip
    (HERE / "visa_drift.md").write_text("\n".join(lines) + "\n")
    kept["host_unchanged"] = host_unchanged
    (HERE / "visa_drift.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
