"""Training a rewriter: a supervised warm-up, then GRPO with the composite reward, by TRL.

Every phase reads a model folder and writes one, keeps checkpoints, and goes on from the last whole
one after a stop. The paper trains with GRPO; the warm-up and all numbers here are ours, untuned
(VISA, arXiv 2603.04822, section 2.4 of our notes).
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from valign.corpora.triplets import Triplet
from valign.methods.progress import report
from valign.methods.visa.claim import claim, description
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.reward import Reward
from valign.methods.visa.rewriter import Rewriter, Task, write_card
from valign.methods.visa.target import composed

if TYPE_CHECKING:
    from datasets import Dataset

Phase = Literal["sft", "grpo", "dpo", "simpo"]
_DONE = "done.json"


@dataclass(frozen=True)
class Settings:
    """How a rewriter is trained; one record for all phases, so that competitors share it.

    Attributes:
        steps: optimiser steps.
        batch: rows a step: texts (sft), pairs (dpo, simpo), completions (grpo; whole groups).
        rate: highest learning rate; None takes 1e-5 with LoRA and 1e-6 without.
        generations: completions a group (grpo).
        beta: KL coefficient (grpo), or the preference's sharpness (dpo, simpo).
        margin: gamma of simpo.
        epsilon: clip range (grpo).
        temperature: of completions (grpo).
        lora_rank: None trains all weights.
        max_new_tokens: longest completion.
        save_every: steps between checkpoints.
        processor_seconds: end the phase after so much time on processors even if steps are left,
            so that phases can be compared at equal cost on a shared machine; None for no limit.
            A phase that ended so is done.
        seed: of data order and sampling.
    """

    steps: int = 200
    batch: int = 16
    rate: float | None = None
    generations: int = 8
    beta: float = 0.02
    margin: float = 0.5
    epsilon: float = 0.2
    temperature: float = 1.0
    lora_rank: int | None = 64
    max_new_tokens: int = 256
    save_every: int = 50
    processor_seconds: float | None = None
    seed: int = 0

    @property
    def learning_rate(self) -> float:
        return self.rate if self.rate is not None else (1e-5 if self.lora_rank else 1e-6)


@dataclass(frozen=True)
class Trained:
    """What a phase left.

    Attributes:
        folder: a rewriter's folder: weights, tokenizer and card.
        steps: steps made.
        seconds: training time in all, stops left out.
        processor_seconds: of it, time on processors; smaller than `seconds` on a shared machine.
        log: what the trainer logged: step, loss, and for grpo the reward's parts and lengths.
    """

    folder: Path
    steps: int
    seconds: float
    processor_seconds: float
    log: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def steps_per_hour(self) -> float:
        return self.steps / self.seconds * 3600 if self.seconds else float("nan")


def train(
    phase: Phase,
    rewriter: Rewriter,
    triplets: Sequence[Triplet],
    folder: str | Path,
    settings: Settings,
    *,
    reward: Reward | None = None,
) -> Trained:
    """Run one phase from a rewriter to a folder; the same phase once done is read, not run again.

    Args:
        phase: `sft` on the references; `grpo` on the reward; `dpo` and `simpo` on the reference
            against each of the triplet's worse rewrites.
        rewriter: where to start; its model stays as it is. GRPO without LoRA loads it a second
            time, as the reference of the KL, from the folder it came from.
        triplets: what to learn from; never the texts a result is judged on.
        folder: gets `model/` and, until it is done, checkpoints.
        reward: for grpo.

    Raises:
        RewriteError: no triplets, no reward for grpo, no worse rewrites for dpo and simpo, a batch
            that does not hold whole groups, or a folder with another training in it.
    """
    folder = Path(folder)
    done = (folder / _DONE).is_file()
    if not done:
        _check(phase, triplets, settings, reward)
    claim(folder, description(phase, rewriter, triplets, settings, reward))
    if done:
        return _read(folder)
    data = _data(phase, rewriter, triplets, reward)
    trainer = _trainer(phase, rewriter, data, folder, settings, reward)
    clock = _clock(folder / "clock.json", phase, settings)
    trainer.add_callback(clock)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    model = trainer.accelerator.unwrap_model(trainer.model)
    if settings.lora_rank:
        model = model.merge_and_unload()
    model.save_pretrained(folder / "model")
    rewriter.lm.tokenizer.save_pretrained(folder / "model")
    write_card(folder / "model", rewriter.card)
    log = [row for row in trainer.state.log_history if "loss" in row]
    spent = dict(seconds=clock.seconds, processor_seconds=clock.processor)
    _write(folder / _DONE, dict(steps=trainer.state.global_step, **spent, log=log))
    for old in folder.glob("checkpoint-*"):
        shutil.rmtree(old)
    return _read(folder)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; broken ones are deleted.

    The trainer writes its state last, so a checkpoint without a readable one was cut short.
    """
    found: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            found[int(path.name.rpartition("-")[2])] = path
        except (OSError, json.JSONDecodeError, ValueError):
            shutil.rmtree(path)
    return str(found[max(found)]) if found else None


def rows(
    phase: Phase, rewriter: Rewriter, triplets: Sequence[Triplet], reward: Reward | None = None
) -> list[dict[str, Any]]:
    """The triplets as TRL wants them: messages where the model has a chat template."""
    chat = rewriter.lm.tokenizer.chat_template is not None

    def asked(triplet: Triplet) -> Any:
        text = rewriter.ask(Task(triplet.source, triplet.changes, prompt=triplet.prompt))
        return [dict(role="user", content=text)] if chat else rewriter.lm.render(text)

    def said(text: str) -> Any:
        if chat:
            return [dict(role="assistant", content=text)]
        return text + (rewriter.lm.tokenizer.eos_token or "")

    if phase == "sft":
        return [dict(prompt=asked(t), completion=said(t.rewrite)) for t in triplets]
    if phase != "grpo":
        return [
            dict(prompt=asked(t), chosen=said(t.rewrite), rejected=said(worse))
            for t in triplets
            for worse in t.worse
        ]
    assert reward is not None
    wanted = targets(rewriter, triplets, reward)
    return [
        dict(prompt=asked(t), source=t.source, question=t.prompt, target=row.tolist())
        for t, row in zip(triplets, wanted, strict=True)
    ]


def targets(rewriter: Rewriter, triplets: Sequence[Triplet], reward: Reward) -> np.ndarray:
    """Wanted scores, (n, n_values): the triplet's own, or the detector's reading and changes."""
    unknown = [t for t in triplets if t.target is None]
    read = iter(reward.detector.score([t.source for t in unknown], [t.prompt for t in unknown]))
    return np.array(
        [
            t.target if t.target is not None else composed(rewriter.system, next(read), t.changes)
            for t in triplets
        ],
        dtype=float,
    ).reshape(len(triplets), len(rewriter.system))


def _check(
    phase: Phase, triplets: Sequence[Triplet], settings: Settings, reward: Reward | None
) -> None:
    lacking = [name for name in ("trl", "peft", "datasets") if find_spec(name) is None]
    if lacking:
        raise RewriteError(
            f"Training a rewriter needs {', '.join(lacking)}: pip install 'valign[train]'."
        )
    if not triplets:
        raise RewriteError("A rewriter learns from triplets; none were given.")
    if phase == "grpo" and reward is None:
        raise RewriteError("GRPO needs a reward: Reward(detector, fidelity).")
    if phase == "grpo" and settings.batch % settings.generations:
        raise RewriteError(
            f"batch={settings.batch} holds no whole groups of {settings.generations}; "
            f"take {settings.generations} or a multiple of it."
        )
    if phase in ("dpo", "simpo") and not any(t.worse for t in triplets):
        raise RewriteError(f"{phase} learns from worse rewrites; these triplets have none.")


def _data(
    phase: Phase, rewriter: Rewriter, triplets: Sequence[Triplet], reward: Reward | None
) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(rows(phase, rewriter, triplets, reward))


def _trainer(
    phase: Phase,
    rewriter: Rewriter,
    data: Dataset,
    folder: Path,
    settings: Settings,
    reward: Reward | None,
) -> Any:
    """The TRL trainer of a phase."""
    cpu = not torch.cuda.is_available()
    shared: dict[str, Any] = dict(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup" if settings.processor_seconds else "linear",
        warmup_steps=min(10, settings.steps // 10),
        save_steps=settings.save_every,
        save_total_limit=2,
        logging_steps=5,
        report_to="none",
        seed=settings.seed,
        use_cpu=cpu,
        bf16=not cpu,
        gradient_checkpointing=not cpu,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    # A copy: the caller's model stays what it is.
    model = copy.deepcopy(rewriter.lm.model).float().requires_grad_(True)
    given: dict[str, Any] = dict(
        model=model, train_dataset=data, processing_class=rewriter.lm.tokenizer
    )
    if settings.lora_rank:
        from peft import LoraConfig

        given["peft_config"] = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    longest = min(rewriter.lm.context_length, 4096)
    if phase == "sft":
        from trl import SFTConfig, SFTTrainer

        sft = SFTConfig(max_length=longest, train_sampling_strategy="group_by_length", **shared)
        return SFTTrainer(args=sft, **given)
    if phase == "dpo":
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer(args=DPOConfig(max_length=longest, beta=settings.beta, **shared), **given)
    if phase == "simpo":
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        cpo = CPOConfig(
            loss_type="simpo", cpo_alpha=0.0, simpo_gamma=settings.margin, beta=settings.beta,
            max_length=longest, max_completion_length=settings.max_new_tokens, **shared,
        )  # fmt: skip
        return CPOTrainer(args=cpo, **given)
    from trl import GRPOConfig, GRPOTrainer

    assert reward is not None
    grpo = GRPOConfig(
        num_generations=settings.generations,
        max_completion_length=settings.max_new_tokens,
        beta=settings.beta,
        epsilon=settings.epsilon,
        temperature=settings.temperature,
        loss_type="dr_grpo",
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=list(reward.weights),
        **shared,
    )
    given["reward_funcs"] = reward.functions()
    return GRPOTrainer(args=grpo, **given)


def _clock(file: Path, phase: Phase, settings: Settings) -> Any:
    """A callback that reports progress, keeps the time over stops, and ends a phase in time."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            kept = json.loads(file.read_text()) if file.is_file() else {}
            self.kept: Mapping[str, list[float]] = kept
            self.seconds = self.processor = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            # Time spent after the last checkpoint was lost with its steps.
            self.before = self.kept.get(str(state.global_step), [0.0, 0.0])
            self.began = time.monotonic(), time.process_time()
            self.seconds, self.processor = self.before

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            self.seconds = self.before[0] + time.monotonic() - self.began[0]
            self.processor = self.before[1] + time.process_time() - self.began[1]
            made = state.global_step
            hourly = made / self.seconds * 3600
            report(f"{phase}, {hourly:.0f} steps/hour", made, settings.steps)
            limit = settings.processor_seconds
            if limit is not None and self.processor >= limit:
                control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            now = [self.seconds, self.processor]
            self.kept = {**self.kept, str(state.global_step): now}
            _write(file, self.kept)

    return Clock()


def _read(folder: Path) -> Trained:
    note = json.loads((folder / _DONE).read_text(encoding="utf-8"))
    spent = note["seconds"], note["processor_seconds"]
    return Trained(folder / "model", note["steps"], *spent, tuple(note["log"]))


def _write(file: Path, data: Mapping[str, Any]) -> None:
    part = file.with_suffix(".part")
    part.write_text(json.dumps(data) + "\n", encoding="utf-8")
    part.replace(file)
