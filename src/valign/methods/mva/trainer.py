"""TRL's DPOTrainer, with a penalty against frozen adapters and references read from the data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import LoraConfig, set_peft_model_state_dict
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from valign.lm import HostModel
from valign.methods.mva.penalties import Adapter, penalty
from valign.methods.mva.samples import Sample
from valign.methods.progress import report

if TYPE_CHECKING:
    from valign.methods.mva.training import Recipe

disable_progress_bar()


class ValueTrainer(DPOTrainer):
    """DPO of one fresh adapter; `earlier` adapters only enter the penalty.

    The rows are token ids with their reference columns, so nothing is tokenised or referred to
    again, and every loss of `valign.methods.mva.training` is one of TRL's.
    """

    def __init__(
        self,
        model: Any,
        args: DPOConfig,
        rows: Dataset,
        tokenizer: Any,
        *,
        recipe: Recipe,
        label: str,
        earlier: Sequence[Adapter],
    ):
        modules = recipe.modules if isinstance(recipe.modules, str) else list(recipe.modules)
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=recipe.rank,
                lora_alpha=recipe.alpha,  # type: ignore[arg-type]  # PEFT only divides it
                target_modules=modules,
                bias="none",
                task_type="CAUSAL_LM",
            ),
            callbacks=[_Progress(label)],
        )
        self.precompute_ref_logps = True  # the columns are there already
        self.remove_callback(PrinterCallback)
        self._recipe = recipe
        device = self.accelerator.device
        self._earlier = [
            {name: (a.to(device), b.to(device)) for name, (a, b) in adapter.items()}
            for adapter in (earlier if recipe.penalty != "none" else ())
        ]

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the control carries its own provenance."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        found = super().compute_loss(model, inputs, *args, **options)
        if not self._earlier:
            return found
        loss, rest = (found[0], found[1:]) if isinstance(found, tuple) else (found, None)
        raw = penalty(self._recipe.penalty, self._now(model), self._earlier)
        self._metrics["train"]["penalty"].append(float(raw.detach()))
        loss = loss + self._recipe.weight * raw
        return loss if rest is None else (loss, *rest)

    def _now(self, model: Any) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Factors in training, with their gradient; whole where they lie in shards."""
        found: dict[str, dict[str, torch.Tensor]] = {}
        for name, parameter in self.accelerator.unwrap_model(model).named_parameters():
            if parameter.requires_grad and ".lora_" in name:
                module, _, side = name.removeprefix("base_model.model.").partition(".lora_")
                whole = getattr(parameter, "full_tensor", lambda p=parameter: p)
                found.setdefault(module, {})[side[0]] = whole()
        return {module: (sides["A"], sides["B"]) for module, sides in found.items()}


class _Progress(TrainerCallback):
    """Tells whoever listens after every step."""

    def __init__(self, label: str):
        self._label = label

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        report(self._label, state.global_step, state.max_steps)


def settings(lm: HostModel, recipe: Recipe, folder: Path, label: str) -> DPOConfig:
    """The recipe in the trainer's words."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    made = DPOConfig(
        output_dir=str(folder),
        loss_type=[recipe.loss],
        beta=recipe.beta,
        per_device_train_batch_size=recipe.batch_size // (world * recipe.accumulate),
        gradient_accumulation_steps=recipe.accumulate,
        num_train_epochs=recipe.epochs,
        max_steps=recipe.steps or -1,
        learning_rate=recipe.rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        gradient_checkpointing=recipe.recompute,
        bf16=lm.dtype is torch.bfloat16,
        fp16=lm.dtype is torch.float16,
        max_length=None,
        use_cpu=lm.device.type == "cpu",
        ddp_backend="gloo" if lm.device.type == "cpu" and world > 1 else None,
        save_strategy="steps",
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_first_step=True,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        seed=recipe.seed_of(label),
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=lm.device.type != "cpu",
    )
    if made.n_gpu > 1:  # one process uses one device; several are started by `accelerate launch`
        made._n_gpu = 1
    return made


def dataset(samples: Sequence[Sample], reference: torch.Tensor) -> Dataset:
    """Rows in the columns that TRL's collator takes."""
    return Dataset.from_dict(
        dict(
            prompt_ids=[s.prompt for s in samples],
            chosen_ids=[s.chosen for s in samples],
            rejected_ids=[s.rejected for s in samples],
            ref_chosen_logps=reference[:, 0].tolist(),
            ref_rejected_logps=reference[:, 1].tolist(),
        )
    )


def take_over(model: Any, factors: Adapter) -> None:
    """Put an adapter's factors in the place of the fresh ones."""
    state = {
        f"base_model.model.{module}.lora_{side}.weight": factor
        for module, (a, b) in factors.items()
        for side, factor in (("A", a), ("B", b))
    }
    set_peft_model_state_dict(model, state)
