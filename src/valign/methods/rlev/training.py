"""RLEV's training on TRL: RLOO, or GRPO whose rewards are not scaled within groups.

Source: arXiv 2510.20187. Group size, KL and clip are UNKNOWN there; ours are untuned.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from valign.lm import HostModel
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.rlev.reward import ALPHA, Weighting, scales


@dataclass(frozen=True)
class Question:
    """A question with its answer and what it is worth.

    Attributes:
        prompt: asked of the model.
        answer: what a right answer says.
        value: v(x), points over the exam's points, in [0, 1].
    """

    prompt: str
    answer: str
    value: float


Verifier = Callable[[str, Question], bool]


def says_the_answer(text: str, question: Question) -> bool:
    """Whether the answer stands in the text as whole words, upper and lower case alike.

    The paper asks a large model; for open answers pass such a judge instead.
    """
    words = r"\s+".join(map(re.escape, question.answer.split()))
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Attributes:
        estimator: `rloo`, or `grpo` with unscaled rewards (scaled ones would cancel s(x)).
        weighting: `value`, or a control: `uniform`, `shuffled`, `none`.
        alpha: slope of s(x).
        steps: optimiser steps.
        batch: completions a step; whole groups.
        generations: completions a question.
        rate: highest learning rate (the paper: 5e-7 on 7B models; ours).
        beta: KL coefficient.
        temperature: of completions.
        max_new_tokens: longest completion (the paper: 1024).
        lora_rank: None trains all weights, as the paper does.
        save_every: steps between checkpoints.
        seed: of order, sampling and `shuffled`.
    """

    estimator: Literal["rloo", "grpo"] = "rloo"
    weighting: Weighting = "value"
    alpha: float = ALPHA
    steps: int = 200
    batch: int = 16
    generations: int = 8
    rate: float = 1e-5
    beta: float = 0.0
    temperature: float = 1.0
    max_new_tokens: int = 128
    lora_rank: int | None = None
    save_every: int = 50
    seed: int = 0


def train(
    lm: HostModel,
    questions: Sequence[Question],
    folder: str | Path,
    settings: Settings | None = None,
    *,
    verifier: Verifier = says_the_answer,
) -> Path:
    """Train a copy of the model; the caller's stays as it is.

    Args:
        folder: gets `model/` and checkpoints; the same call goes on from the last whole one.
        verifier: whether a text answers a question.

    Returns:
        The folder of the trained model, an ordinary Hugging Face one.

    Raises:
        FitError: no questions, or TRL is not installed.
        MethodSettingError: a batch that does not hold whole groups, or values outside [0, 1].
    """
    from valign.methods.visa.training import last_whole_checkpoint

    settings, folder = settings or Settings(), Path(folder)
    done = folder / "model"
    if (done / "config.json").is_file():
        return done
    if not questions:
        raise FitError("RLEV learns from questions; none were given.")
    if settings.batch % settings.generations:
        raise MethodSettingError(
            f"batch={settings.batch} holds no whole groups of {settings.generations}; take "
            f"{settings.generations} or a multiple of it."
        )
    if lacking := [name for name in ("trl", "peft", "datasets") if find_spec(name) is None]:
        raise FitError(f"Training needs {', '.join(lacking)}: pip install 'valign[train]'.")
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _trainer(lm, questions, folder, settings, verifier)
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(folder))
    model = trainer.accelerator.unwrap_model(trainer.model)
    if settings.lora_rank:
        model = model.merge_and_unload()
    unfinished = folder / "model.part"
    model.save_pretrained(unfinished)
    lm.tokenizer.save_pretrained(unfinished)
    unfinished.rename(done)
    return done


def _trainer(
    lm: HostModel,
    questions: Sequence[Question],
    folder: Path,
    settings: Settings,
    verifier: Verifier,
) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    chat = lm.tokenizer.chat_template is not None
    weights = scales(
        [q.value for q in questions], settings.weighting, alpha=settings.alpha, seed=settings.seed
    )
    rows = [
        dict(
            prompt=[dict(role="user", content=q.prompt)] if chat else lm.render(q.prompt),
            number=number,
            scale=float(s),
        )
        for number, (q, s) in enumerate(zip(questions, weights, strict=True))
    ]

    def reward(completions: list, number: list[int], scale: list[float], **more: Any) -> list:
        said = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
        return [
            s * verifier(text, questions[n]) for text, n, s in zip(said, number, scale, strict=True)
        ]

    cpu = not torch.cuda.is_available()
    shared: dict[str, Any] = dict(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        num_generations=settings.generations,
        max_completion_length=settings.max_new_tokens,
        learning_rate=settings.rate,
        beta=settings.beta,
        temperature=settings.temperature,
        save_steps=settings.save_every,
        save_total_limit=2,
        report_to="none",
        seed=settings.seed,
        use_cpu=cpu,
        bf16=not cpu,
        dataloader_pin_memory=False,
    )
    given: dict[str, Any] = dict(
        model=copy.deepcopy(lm.model).float().requires_grad_(True),
        train_dataset=Dataset.from_list(rows),
        processing_class=lm.tokenizer,
        reward_funcs=reward,
    )
    if settings.lora_rank:
        from peft import LoraConfig

        given["peft_config"] = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    if settings.estimator == "rloo":
        return RLOOTrainer(args=RLOOConfig(normalize_advantages=False, **shared), **given)
    return GRPOTrainer(args=GRPOConfig(scale_rewards="none", **shared), **given)
