"""One LoRA adapter trained on preferences, with TRL's DPOTrainer; checkpoints, resume, processes.

One trainer serves every loss of the family, because the reference log-probabilities are columns of
the data. With l(y) = log pi(y|x), L the tokens of an answer and f what its column says:

    dpo         -log sigma(beta [l(y+) - f(y+) - l(y-) + f(y-)]),  f = log pi_ref
    sequential  the same, f = log-probability after the adapter before
    modpo       f = log pi_ref + sum_k w_k r_k / beta, and beta / w_0 instead of beta
    simpo       length-normalised, f(y+) = L gamma / beta, f(y-) = 0: no reference
    sft         -log pi(y+) per token

A finished adapter is a PEFT folder, moved to its place in one step and named by a hash of all that
decides it; asked for again, it is read. An unfinished one goes on from the trainer's checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from valign.lm import HostModel
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.mva.modules import ALL
from valign.methods.mva.penalties import STRENGTH, Adapter, PenaltyName
from valign.methods.mva.samples import Sample
from valign.methods.progress import report

_FINISHED = "finished.json"
"""Lies in a finished adapter's folder."""


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained.

    Attributes:
        loss: TRL's name of it: `sigmoid` (DPO), `sigmoid_norm` (per token, for SimPO), `sft`.
        beta: of the preference losses.
        rank, alpha: of the adapter; its updates are scaled by alpha / rank.
        modules: names of the linear layers that get one, whole or their ends, or `all-linear`.
        epochs, steps: passes over the data, or steps if not 0.
        rate: highest learning rate; it falls to 0 by a cosine after a tenth of warm-up.
        batch_size: pairs per step, over all processes and accumulated parts.
        accumulate: parts that a step's pairs are cut into, for memory.
        recompute: trade time for memory (gradient checkpointing).
        save_every: steps between checkpoints.
        penalty, strength: against the earlier adapters; None takes the penalty's own strength.
        seed: of the adapter's start and the order of the pairs; every label draws its own from it,
            or all adapters would start from one A.
    """

    loss: Literal["sigmoid", "sigmoid_norm", "sft"] = "sigmoid"
    beta: float = 0.1
    rank: int = 16
    alpha: float = 32.0
    modules: tuple[str, ...] | Literal["all-linear"] = ALL
    epochs: int = 3
    steps: int = 0
    rate: float = 1e-4
    batch_size: int = 8
    accumulate: int = 1
    recompute: bool = False
    save_every: int = 100
    penalty: PenaltyName = "none"
    strength: float | None = None
    seed: int = 0

    def seed_of(self, label: str) -> int:
        """The seed of one adapter."""
        return (self.seed + zlib.crc32(label.encode())) % 2**31

    @property
    def weight(self) -> float:
        """Of the penalty beside the loss."""
        return STRENGTH[self.penalty] if self.strength is None else self.strength


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished adapter.

    Attributes:
        label: the value it is for.
        factors: module -> (A, B), float32 on the CPU; module names as in the host model.
        scaling: alpha / rank.
        figures: steps, seconds of training and last losses.
        folder: where it lies in PEFT's format; None if no folder was asked for.
    """

    label: str
    factors: Adapter
    scaling: float
    figures: dict[str, Any]
    folder: Path | None


def train_adapter(
    lm: HostModel,
    samples: Sequence[Sample],
    reference: torch.Tensor,
    recipe: Recipe,
    *,
    label: str,
    earlier: Sequence[Trained] = (),
    start: Trained | None = None,
    folder: Path | None = None,
) -> Trained:
    """Train one adapter on the frozen model, which stays as it is.

    Args:
        samples: tokenised preferences.
        reference: (n, 2), the column f of the chosen and rejected answers.
        label: of the value, for progress and file names.
        earlier: frozen adapters that the penalty looks at.
        start: continue this adapter instead of a fresh one.
        folder: for checkpoints and the finished adapter; needed where several processes train.

    Raises:
        FitError: too few pairs for one step.
        MethodSettingError: sizes that several processes cannot share.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if len(samples) < recipe.batch_size:
        raise FitError(
            f"{label}: {len(samples)} pairs are fewer than batch_size={recipe.batch_size}. "
            "Add pairs or make the batch smaller."
        )
    if recipe.batch_size % (world * recipe.accumulate):
        raise MethodSettingError(
            f"batch_size={recipe.batch_size} cannot be shared by {world} processes in "
            f"accumulate={recipe.accumulate} parts each; give a multiple of "
            f"{world * recipe.accumulate}."
        )
    if world > 1 and folder is None:
        raise MethodSettingError(
            "Several processes share a finished adapter through files; set checkpoint=FOLDER."
        )
    key = _key(lm, samples, reference, recipe, label, earlier, start)
    if folder is None:
        import tempfile

        if ("adapter", key) in lm.memo:
            return lm.memo["adapter", key]
        with tempfile.TemporaryDirectory(prefix="valign-") as temporary:
            made = _run(lm, samples, reference, recipe, label, earlier, start, Path(temporary), key)
        lm.memo["adapter", key] = Trained(label, made.factors, made.scaling, made.figures, None)
        return lm.memo["adapter", key]
    place = folder / f"{label}-{key}"
    if not (place / _FINISHED).is_file():
        _run(lm, samples, reference, recipe, label, earlier, start, folder, key)
    return read_adapter(place, label)


def read_adapter(folder: Path, label: str) -> Trained:
    """A finished adapter from its folder."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    factors = _factors(load_file(folder / "adapter_model.safetensors"))
    figures = json.loads((folder / _FINISHED).read_text())
    return Trained(label, factors, config["lora_alpha"] / config["r"], figures, folder)


def _run(
    lm: HostModel,
    samples: Sequence[Sample],
    reference: torch.Tensor,
    recipe: Recipe,
    label: str,
    earlier: Sequence[Trained],
    start: Trained | None,
    folder: Path,
    key: str,
) -> Trained:
    """Train, write the finished folder, wait for all processes, read it."""
    from valign.methods.mva.trainer import ValueTrainer, dataset, settings, take_over

    place, part = folder / f"{label}-{key}", folder / f"{label}-{key}.part"
    part.mkdir(parents=True, exist_ok=True)
    report(label, 0, 1)
    with _own_randomness(), copied(lm) as model, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = ValueTrainer(
            model,
            settings(lm, recipe, part, label),
            dataset(samples, reference),
            lm.tokenizer,
            recipe=recipe,
            label=label,
            earlier=[t.factors for t in earlier],
        )
        if start is not None:
            take_over(trainer.model, start.factors)
        began, worked = time.perf_counter(), time.process_time()
        trainer.train(resume_from_checkpoint=_newest(part))
        seconds, worked = time.perf_counter() - began, time.process_time() - worked
        history = [row for row in trainer.state.log_history if "loss" in row]
        figures = dict(
            steps=trainer.state.global_step, seconds=round(seconds, 2), cpu_seconds=round(worked, 2)
        )
        for name in ("loss", "penalty", "rewards/accuracies"):
            if history and name in history[-1]:
                figures[name.rpartition("/")[2]] = round(float(history[-1][name]), 4)
        final = part / "final"
        trainer.save_model(str(final))  # whole also where the weights are in shards
        trainer.accelerator.wait_for_everyone()
        if trainer.accelerator.is_main_process:
            for path in final.iterdir():
                if not path.name.startswith("adapter_"):
                    path.unlink()  # the tokenizer and the trainer's settings are not the adapter's
            (final / _FINISHED).write_text(json.dumps(figures))
            if place.exists():
                shutil.rmtree(place)
            os.replace(final, place)
            shutil.rmtree(part, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        made = read_adapter(place, label)
        trainer.accelerator.wait_for_everyone()  # nobody tidies up before all have read
        trainer.accelerator.free_memory()
    report(label, 1, 1)
    return made


def _newest(part: Path) -> str | None:
    """The latest whole checkpoint; one that a kill cut short lacks its last file."""
    found = []
    for path in part.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text())
            whole = (path / "adapter_model.safetensors").is_file() and any(path.glob("rng_state*"))
            if whole and (path / "optimizer.pt").is_file() and (path / "scheduler.pt").is_file():
                found.append((state["global_step"], str(path)))
        except (OSError, ValueError, KeyError):
            continue
    return max(found)[1] if found else None


@contextmanager
def copied(lm: HostModel) -> Iterator[torch.nn.Module]:
    """The model's modules anew over the same weights: adapters and patches stay in the copy.

    The weights themselves must not be trained or moved; whether they ask for gradients is put back.
    """
    model = lm.model
    shared = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    asked = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield copy.deepcopy(model, dict(shared))
    finally:
        for parameter, wanted in asked:
            parameter.requires_grad_(wanted)
            parameter.grad = None


@contextmanager
def _own_randomness() -> Iterator[None]:
    """The trainer seeds every global generator; the caller finds them as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def _key(
    lm: HostModel,
    samples: Sequence[Sample],
    reference: torch.Tensor,
    recipe: Recipe,
    label: str,
    earlier: Sequence[Trained],
    start: Trained | None,
) -> str:
    """16 hex digits over everything that decides the adapter."""
    settings = {k: v for k, v in asdict(recipe).items() if k not in ("save_every", "recompute")}
    settings["strength"] = recipe.weight
    digest = hashlib.sha256(json.dumps([settings, label, lm.fingerprint]).encode())
    for sample in samples:
        digest.update(json.dumps([sample.prompt, sample.chosen, sample.rejected]).encode())
    digest.update(reference.float().numpy().tobytes())
    for trained in [*(earlier if recipe.penalty != "none" else ()), *([start] if start else [])]:
        for name in sorted(trained.factors):
            digest.update(name.encode())
            for factor in trained.factors[name]:
                digest.update(factor.numpy().tobytes())
    return digest.hexdigest()[:16]


def _factors(state: dict[str, torch.Tensor]) -> Adapter:
    """PEFT's state dict as module -> (A, B)."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in state.items():
        module, _, side = name.removeprefix("base_model.model.").partition(".lora_")
        found.setdefault(module, {})[side[0]] = tensor.float().contiguous()
    return {module: (sides["A"], sides["B"]) for module, sides in sorted(found.items())}
