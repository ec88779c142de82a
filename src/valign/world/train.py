"""Trains the reference model from a seed: ``python -m valign.world.train --out DIR``.

Interrupt it at any time and start it again with the same ``--out``: it goes on from the last
checkpoint with the same numbers as if it had never stopped. The learning rate is constant after a
short warm-up and falls to zero over the last ``--decay-tokens``, so a run can be given more or
fewer tokens later and still end well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .batches import Batch, Stream
from .generator import World
from .tokenizer import VOCABULARY, load_tokenizer, train_tokenizer


@dataclass(frozen=True)
class Settings:
    """What a run is; saved beside its checkpoint."""

    seed: int = 0
    tokens: float = 13.5e6
    decay_tokens: float = 3e6
    width: int = 192
    rows: int = 32
    chunk: int = 4096
    hidden: int = 256
    layers: int = 8
    heads: int = 8
    feedforward: int = 896
    rate: float = 4e-3
    warmup_steps: int = 50
    checkpoint_minutes: float = 5.0
    compile: bool = True
    bfloat16: bool = True
    tokenizer_dialogues: int = 20_000


def build_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh model; the seed decides its weights."""
    torch.manual_seed(settings.seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=settings.hidden,
        intermediate_size=settings.feedforward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def build_optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon, scaled to the size of AdamW's updates, for hidden matrices; AdamW for the rest."""
    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(
            hidden, lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]


def rate_at(settings: Settings, step: int, tokens: float) -> float:
    """Learning rate: warm-up, constant, linear decay over the last ``decay_tokens``."""
    warm = min(1.0, (step + 1) / settings.warmup_steps)
    left = max(0.0, settings.tokens - tokens)
    return settings.rate * warm * min(1.0, left / settings.decay_tokens)


def loss_of(model: torch.nn.Module, batch: Batch, bfloat16: bool) -> tuple[torch.Tensor, float]:
    """Weighted loss (a scalar to differentiate) and the mean nats per answer token."""
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    mask = torch.zeros(batch.mask.shape, dtype=dtype).masked_fill_(~batch.mask, -1e9)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = model(
            input_ids=batch.ids, position_ids=batch.positions, attention_mask=mask, use_cache=False
        ).logits
    nats = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.ids[:, 1:].flatten(), reduction="none"
    )
    weights, answers = batch.weights[:, 1:].flatten(), batch.answers[:, 1:].flatten()
    answer_nats = float(nats.detach()[answers].mean())
    return (nats * weights).sum() / weights.sum(), answer_nats


def save_checkpoint(
    path: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], state: dict
) -> None:
    """Write model, optimizers and state as one safetensors file, replacing the old one at once."""
    tensors = {
        f"model/{k}": v.contiguous().clone()
        for k, v in model.state_dict().items()
        if k != "lm_head.weight"
    }
    for o, optimizer in enumerate(optimizers):
        for p, held in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer{o}/{p}/{k}": torch.as_tensor(v).clone() for k, v in held.items()
            }
    scratch = path.with_suffix(".part")
    save_file(tensors, scratch, metadata={"state": json.dumps(state)})
    os.replace(scratch, path)


def load_checkpoint(
    path: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]
) -> dict:
    """Load what :func:`save_checkpoint` wrote and return its state."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
    tensors = load_file(path)
    weights = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    missing = model.load_state_dict(weights, strict=False).missing_keys
    if set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{path} lacks {missing}; it was written by a run with other settings")
    for o, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        whole["state"] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer{o}/"):
                _, p, name = key.split("/")
                whole["state"].setdefault(int(p), {})[name] = value
        optimizer.load_state_dict(whole)
    return state


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary Hugging Face folder: float16 weights, tokenizer, configs.

    The configuration names float32 as the type to compute in: half precision is only how the
    weights are stored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy = LlamaForCausalLM(model.config)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    copy.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text())
    config["dtype"] = "float32"
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def train(out: Path, settings: Settings, stop_after_steps: int | None = None) -> LlamaForCausalLM:
    """Train, or go on training, in ``out``; exports to ``out/latest`` at every checkpoint.

    Args:
        out: folder of the run: ``checkpoint.safetensors``, ``log.jsonl``, ``settings.json``,
            ``latest/``.
        settings: the run's settings; on resuming only ``tokens`` and ``decay_tokens`` may differ.
        stop_after_steps: leave (with a checkpoint) after this many steps in this process.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "settings.json").write_text(json.dumps(asdict(settings), indent=2))
    if not (out / "tokenizer").exists():
        train_tokenizer(settings.seed, settings.tokenizer_dialogues).save_pretrained(
            out / "tokenizer"
        )
    tokenizer = load_tokenizer(out / "tokenizer")
    model = build_model(settings, tokenizer)
    optimizers = build_optimizers(model, settings.rate)
    checkpoint = out / "checkpoint.safetensors"
    state = {"step": 0, "tokens": 0, "position": [0, 0], "seconds": 0.0}
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, model, optimizers)
    stream = Stream(
        World(settings.seed),
        tokenizer,
        rows=settings.rows,
        width=settings.width,
        chunk=settings.chunk,
        position=tuple(state["position"]),
    )
    forward = torch.compile(model, dynamic=False) if settings.compile else model
    model.train()
    started = saved = time.time()
    before, first_step = state["seconds"], state["step"]
    smooth: float | None = None
    with (out / "log.jsonl").open("a") as log:
        while state["tokens"] < settings.tokens:
            rate = rate_at(settings, state["step"], state["tokens"])
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate
            batch = stream.next()
            loss, answer_nats = loss_of(forward, batch, settings.bfloat16)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if not math.isfinite(answer_nats):
                raise FloatingPointError(
                    f"loss is {answer_nats} at step {state['step']}; lower the rate"
                )
            state = {
                "step": state["step"] + 1,
                "tokens": state["tokens"] + int((batch.weights > 0).sum()),
                "position": list(stream.position),
                "seconds": before + time.time() - started,
            }
            smooth = answer_nats if smooth is None else 0.95 * smooth + 0.05 * answer_nats
            if state["step"] % 20 == 0:
                row = {**state, "answer_nats": round(smooth, 4), "rate": rate}
                log.write(json.dumps(row) + "\n")
                log.flush()
            if time.time() - saved > 60 * settings.checkpoint_minutes:
                save_checkpoint(checkpoint, model, optimizers, state)
                export(model, tokenizer, out / "latest")
                saved = time.time()
            if stop_after_steps and state["step"] - first_step >= stop_after_steps:
                break
    save_checkpoint(checkpoint, model, optimizers, state)
    export(model, tokenizer, out / "latest")
    return model.eval()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the run; an existing run goes on"
    )
    parser.add_argument("--tokens", type=float, default=Settings.tokens)
    parser.add_argument("--decay-tokens", type=float, default=Settings.decay_tokens)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=Settings.rate)
    parser.add_argument("--threads", type=int, default=0, help="0: leave it to torch")
    parser.add_argument("--steps", type=int, default=None, help="leave after this many steps")
    given = parser.parse_args()
    if given.threads:
        # Idle OpenMP threads that spin take the cores from everybody else; a fixed number keeps the
        # speed steady.
        torch.set_num_threads(given.threads)
    settings = Settings(
        seed=given.seed, tokens=given.tokens, decay_tokens=given.decay_tokens, rate=given.rate
    )
    train(given.out, settings, given.steps)


if __name__ == "__main__":
    main()
