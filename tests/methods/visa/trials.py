"""Trainings on a tiny model, run as a process of their own: importing TRL is slow.

python -m tests.methods.visa.trials all|long FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from tests.lm.tiny import tiny_lm
from tests.methods.visa.fake import SYSTEM
from valign.corpora.triplets import Triplet
from valign.lm import HostModel
from valign.methods.progress import listening
from valign.methods.visa import training
from valign.methods.visa.reward import PARTS, Reward, advantages
from valign.methods.visa.rewriter import Rewriter, template_text

TRIPLETS = [
    Triplet(
        f"t{i}", f"we {a} the {b} today", {"security": 1.0}, f"we {a} the safe {b} today",
        worse=(f"we {a} the {b}",),
    )
    for i, (a, b) in enumerate((a, b) for a in ("keep", "take", "give") for b in ("home", "trip"))
]  # fmt: skip


class Detector:
    """Security by the word for it, and a little of every other value by length."""

    name = "tiny"
    system = SYSTEM

    def score(self, texts, prompts=None):
        found = np.zeros((len(texts), 10))
        for row, text in enumerate(texts):
            found[row] = (len(text) % 7) / 20
            found[row, SYSTEM.index("security")] = min(1.0, 0.3 + text.split().count("safe") / 2)
        return found


class Fidelity:
    name = "tiny"

    def judge(self, sources, texts, prompts=None):
        rows = [
            (0.2 + len({*s.split()} & {*t.split()}) / 20, 0.2 + (len(t) % 5) / 10)
            for s, t in zip(sources, texts, strict=True)
        ]
        return np.array(rows)


REWARD = Reward(Detector(), Fidelity())
LONG = 150
"""Steps of the training that is killed: enough to be killed in its middle."""


def start(folder: Path) -> Rewriter:
    model = folder / "model"
    if not model.is_dir():
        lm = tiny_lm()
        lm.model.save_pretrained(model)
        lm.tokenizer.save_pretrained(model)
    return Rewriter(HostModel.load(model), SYSTEM, template_text("world"), max_new_tokens=6)


def settings(**more) -> training.Settings:
    return training.Settings(
        **{**dict(steps=3, batch=4, generations=4, lora_rank=4, rate=1e-2, max_new_tokens=6,
                  save_every=1), **more}
    )  # fmt: skip


def moved(a: Path, b: Path) -> float:
    one, two = (HostModel.load(x).model.state_dict() for x in (a, b))
    return max(float((one[k] - two[k]).abs().max()) for k in one)


def everything(folder: Path) -> dict:
    rewriter = start(folder)
    said: dict = {}
    for phase, more in (
        ("sft", {}), ("grpo", {}), ("dpo", dict(batch=2)), ("simpo", dict(batch=2, beta=2.0)),
    ):  # fmt: skip
        for rank in (4, None) if phase in ("sft", "grpo") else (4,):
            made = training.train(
                phase, rewriter, TRIPLETS, folder / f"{phase}-{rank}",
                settings(lora_rank=rank, **more), reward=REWARD,
            )  # fmt: skip
            again = Rewriter.load(made.folder)
            said[f"{phase}-{rank}"] = dict(
                steps=made.steps,
                hourly=made.steps_per_hour,
                moved=moved(folder / "model", made.folder),
                template=again.template == rewriter.template,
                left=sorted(p.name for p in (folder / f"{phase}-{rank}").glob("checkpoint-*")),
                logged=sorted(made.log[-1]) if made.log else [],
            )
    before = (folder / "sft-4" / "done.json").stat().st_mtime_ns
    training.train("sft", rewriter, TRIPLETS, folder / "sft-4", settings())
    said["read again"] = before == (folder / "sft-4" / "done.json").stat().st_mtime_ns
    heard: list[int] = []
    with listening(lambda what, done, total: heard.append(done)):
        resumed = training.train("sft", rewriter, TRIPLETS, folder / "long", settings(steps=LONG))
    said["resumed"] = dict(steps=resumed.steps, first=heard[0],
                           left=len(list((folder / "long").glob("check*"))))  # fmt: skip
    timed = training.train(
        "sft", rewriter, TRIPLETS, folder / "timed", settings(steps=10_000, processor_seconds=0.5)
    )
    said["timed"] = dict(steps=timed.steps, seconds=timed.processor_seconds)
    said["advantages"] = parity(rewriter, folder / "parity")
    return said


def parity(rewriter: Rewriter, folder: Path) -> float:
    """Largest gap between TRL's advantages and ours in one step."""
    own = settings(steps=1, batch=8, temperature=2.0)
    data = training._data("grpo", rewriter, TRIPLETS, REWARD)
    trainer = training._trainer("grpo", rewriter, data, folder, own, REWARD)
    trainer.train()
    parts = np.array([list(trainer._logs["rewards"][name]) for name in PARTS]).T
    ours = advantages(parts, REWARD.weights, group=own.generations)
    assert np.abs(ours).max() > 0.1
    return float(np.abs(ours - np.array(list(trainer._logs["advantages"]))).max())


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "long":
        training.train("sft", start(where), TRIPLETS, where / "long", settings(steps=LONG))
    else:
        print("RESULT " + json.dumps(everything(where)))
