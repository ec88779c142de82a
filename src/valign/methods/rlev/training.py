"""RLEV's training on TRL: RLOO, or GRPO whose rewards are not scaled within groups.

Source: arXiv 2510.20187. Group size, KL and clip are UNKNOWN there; ours are untuned.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from valign.lm import HostModel
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.progress import report
from valign.methods.rlev.questions import Question, Verifier, says_the_answer
from valign.methods.rlev.reward import scales
from valign.methods.rlev.settings import Settings


def train(
    lm: HostModel,
    questions: Sequence[Question],
    folder: str | Path,
    settings: Settings | None = None,
    *,
    verifier: Verifier = says_the_answer,
) -> Path:
    """Train an adapter, or a copy of the whole model; the caller's model stays as it is.

    Args:
        folder: gets a subfolder named by a hash of model, questions and settings, with checkpoints
            and the result; the same call goes on from the last whole checkpoint.
        verifier: whether a text answers a question.

    Returns:
        The result's folder: a PEFT adapter's, or with `lora_rank=0` a Hugging Face model's.

    Raises:
        FitError: no questions, or TRL is not installed.
        MethodSettingError: a batch that does not hold whole groups, or values outside [0, 1].
    """
    from valign.methods.mva.training import copied
    from valign.methods.visa.training import last_whole_checkpoint

    settings = settings or Settings()
    check(questions, settings)
    place = Path(folder) / f"rlev-{_key(lm, questions, settings, verifier)}"
    done = place / ("adapter" if settings.lora_rank else "model")
    if (done / "config.json").is_file() or (done / "adapter_config.json").is_file():
        return done
    place.mkdir(parents=True, exist_ok=True)
    # An adapter leaves the weights alone, so its base shares them; training them needs a copy.
    with copied(lm) if settings.lora_rank else nullcontext(_trainable(lm)) as model:
        trainer = _trainer(lm, model, questions, place, settings, verifier)
        trainer.train(resume_from_checkpoint=last_whole_checkpoint(place))
        unfinished = place / f"{done.name}.part"
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(unfinished)
    lm.tokenizer.save_pretrained(unfinished)
    unfinished.rename(done)
    return done


def check(questions: Sequence[Question], settings: Settings) -> None:
    """Refuse before anything is loaded or generated; raises as `train` does."""
    if not questions:
        raise FitError("RLEV learns from questions; none were given.")
    scales([q.value for q in questions])
    if settings.batch % settings.generations:
        raise MethodSettingError(
            f"batch={settings.batch} holds no whole groups of {settings.generations}; take "
            f"{settings.generations} or a multiple of it."
        )
    if lacking := [name for name in ("trl", "peft", "datasets") if find_spec(name) is None]:
        raise FitError(f"Training needs {', '.join(lacking)}: pip install 'valign[train]'.")


def _key(
    lm: HostModel, questions: Sequence[Question], settings: Settings, verifier: Verifier
) -> str:
    """16 hex digits over everything that decides the result."""
    deciding = {k: v for k, v in settings.settings.items() if k not in ("save_every", "held_out")}
    judge = getattr(verifier, "__qualname__", type(verifier).__qualname__)
    rows = [astuple(q) for q in questions]
    text = json.dumps([deciding, judge, lm.fingerprint, rows], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _trainable(lm: HostModel) -> torch.nn.Module:
    return copy.deepcopy(lm.model).float().requires_grad_(True)


def _trainer(
    lm: HostModel,
    model: torch.nn.Module,
    questions: Sequence[Question],
    folder: Path,
    settings: Settings,
    verifier: Verifier,
) -> Any:
    from datasets import Dataset
    from transformers import PrinterCallback
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

    cpu = lm.device.type == "cpu"
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
        bf16=lm.dtype is torch.bfloat16,
        fp16=lm.dtype is torch.float16,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    given: dict[str, Any] = dict(
        model=model,
        train_dataset=Dataset.from_list(rows),
        processing_class=copy.deepcopy(lm.tokenizer),
        reward_funcs=reward,
        callbacks=[_progress()],
    )
    if settings.lora_rank:
        from peft import LoraConfig

        given["peft_config"] = LoraConfig(
            r=settings.lora_rank,
            lora_alpha=settings.lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    trainer: Any
    if settings.estimator == "rloo":
        trainer = RLOOTrainer(args=RLOOConfig(normalize_advantages=False, **shared), **given)
    else:
        trainer = GRPOTrainer(args=GRPOConfig(scale_rewards="none", **shared), **given)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _progress() -> Any:
    """A callback that tells whoever listens after every step."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            report("steps", state.global_step, state.max_steps)

    return Progress()
