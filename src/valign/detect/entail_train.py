"""Trains the bundled entailment model; resumable, on one thread.

    python -m valign.detect.entail_train --public DATA/public --texts DATA/valuetexts \\
        --work DIR

The frozen layers run over each pair once and their activations are kept in memory (float16), so
that later epochs cost only the four upper layers. A checkpoint (weights, optimiser, position) is
written every few minutes; the same command continues from it. Validation is CAD train families
that were held out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from valign.detect.entail_data import (
    Pair,
    breaking_nli,
    cad_nli,
    esnli,
    med,
    own_pairs,
    own_texts,
    split_blocks,
    without_overlap,
)
from valign.detect.entail_model import (
    BUNDLED,
    LABELS,
    EntailmentNet,
    encode_pairs,
    load_tokenizer,
    save_upper,
)


def training_pairs(public: Path, texts: Path, *, own: int, seed: int) -> dict[str, list[Pair]]:
    """Train and validation pairs; nothing of the four test sets, compared by text."""
    tests = [*esnli(public, "test"), *cad_nli(public, "test"), *med(public), *breaking_nli(public)]
    cad_train, validation = split_blocks(cad_nli(public, "train"), 120, seed=seed)
    made = own_pairs(own_texts(texts), n=own, seed=seed)
    train = without_overlap([*esnli(public, "dev"), *cad_train, *made], tests)
    return {"train": train, "validation": validation}


class CachedPairs:
    """Pairs in length buckets; the frozen layers run over a pair once, when it is first used."""

    def __init__(
        self,
        net: EntailmentNet,
        tokenizer: PreTrainedTokenizerBase,
        pairs: list[Pair],
        *,
        max_length: int,
    ):
        self._net, self._tokenizer, self._max_length = net, tokenizer, max_length
        self._pairs = pairs
        self.labels = torch.tensor([LABELS.index(pair.label) for pair in pairs])
        self._words = [len(f"{p.premise} {p.hypothesis}".split()) for p in pairs]
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def batches(self, size: int, rng: random.Random | None) -> list[list[int]]:
        """Rows by batch: alike in length, in random order where `rng` is given."""
        jitter = rng.random if rng else (lambda: 0.0)
        order = sorted(range(len(self.labels)), key=lambda i: self._words[i] + 2 * jitter())
        found = [order[i : i + size] for i in range(0, len(order), size)]
        if rng:
            rng.shuffle(found)
        return found

    def batch(self, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Activations after the frozen layers, sides and labels of some rows."""
        if new := [i for i in rows if i not in self._kept]:
            self._run_frozen(new)
        hidden = nn.utils.rnn.pad_sequence([self._kept[i][0].float() for i in rows], True)
        sides = nn.utils.rnn.pad_sequence([self._kept[i][1] for i in rows], True)
        return hidden, sides, self.labels[rows]

    def _run_frozen(self, rows: list[int]) -> None:
        ids, types, sides = encode_pairs(
            self._tokenizer,
            [self._pairs[i].premise for i in rows],
            [self._pairs[i].hypothesis for i in rows],
            max_length=self._max_length,
        )
        training = self._net.training
        self._net.eval()  # dropout in what is computed once would be the same for ever
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hidden = self._net.lower(ids, types, sides > 0).half()
        self._net.train(training)
        for row, i in enumerate(rows):
            size = int((sides[row] > 0).sum())
            self._kept[i] = (hidden[row, :size].clone(), sides[row, :size].clone())


@torch.inference_mode()
def accuracy(net: EntailmentNet, data: CachedPairs) -> float:
    net.eval()
    right = 0
    for rows in data.batches(64, None):
        hidden, sides, labels = data.batch(rows)
        with torch.autocast("cpu", torch.bfloat16):
            right += int((net.upper(hidden, sides).argmax(-1) == labels).sum())
    return right / len(data.labels)


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    net, tokenizer = EntailmentNet.from_minilm().eval(), load_tokenizer()
    splits = training_pairs(args.public, args.texts, own=args.own, seed=args.seed)
    data = {
        name: CachedPairs(net, tokenizer, pairs, max_length=args.max_length)
        for name, pairs in splits.items()
    }
    sizes = {name: len(pairs) for name, pairs in splits.items()}
    print(sizes, flush=True)

    trained = {n: p for n, p in net.named_parameters() if n in net.trained()}
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name in trained)
    head = [p for n, p in trained.items() if n.startswith("head")]
    body = [p for n, p in trained.items() if not n.startswith("head")]
    optimiser = torch.optim.AdamW(
        [{"params": body, "lr": args.lr}, {"params": head, "lr": 10 * args.lr}], weight_decay=0.01
    )
    per_epoch = len(data["train"].batches(args.batch, None))
    total = per_epoch * args.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda t: min(
            (t + 1) / (0.06 * total), max(0.0, 0.5 + 0.5 * math.cos(math.pi * t / total))
        ),
    )
    card = {
        "name": "valign-entailment-1", "labels": LABELS, "frozen_layers": net.frozen_layers,
        "sizes": sizes, "seed": args.seed, "epochs": args.epochs, "lr": args.lr,
        "batch": args.batch, "max_length": args.max_length,
    }  # fmt: skip
    step, best, checkpoint = 0, 0.0, args.work / "entailment.ckpt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        if saved.get("card") != card:
            raise SystemExit(
                f"{checkpoint} belongs to a run with other settings or texts: {saved.get('card')}. "
                "Give this one another --work."
            )
        net.load_state_dict(saved["net"], strict=False)
        optimiser.load_state_dict(saved["optimiser"])
        schedule.load_state_dict(saved["schedule"])
        step, best = saved["step"], saved["best"]
        print(f"continues at step {step}", flush=True)

    def keep() -> None:
        state = {
            "card": card, "net": net.trained(), "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(), "step": step, "best": best,
        }  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".partial"))
        checkpoint.with_suffix(".partial").replace(checkpoint)

    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    clock, last, running = time.time(), time.time(), 0.0
    while step < total and time.time() < args.stop:
        epoch, done = divmod(step, per_epoch)
        order = data["train"].batches(args.batch, random.Random(args.seed + epoch))[done:]
        net.train()
        for rows in order:
            hidden, sides, labels = data["train"].batch(rows)
            with torch.autocast("cpu", torch.bfloat16):
                logits = net.upper(hidden, sides)
            loss = loss_of(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained.values(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            running = 0.98 * running + 0.02 * loss.item() if running else loss.item()
            if step % 50 == 0:
                rate = (time.time() - clock) / 50
                clock = time.time()
                print(f"{step}/{total} loss {running:.3f} {rate:.2f} s/step", flush=True)
            if time.time() - last > 180:
                keep()
                last = time.time()
            if time.time() > args.stop:
                break
        score = accuracy(net, data["validation"])
        print(f"step {step}: validation {score:.4f}", flush=True)
        if score >= best:
            best = score
            save_upper(net, args.out, card={**card, "step": step, "validation": score})
        keep()
    (args.work / "finished.json").write_text(json.dumps({"step": step, "best": best}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--public", type=Path, required=True, help="folder of the public sets")
    parser.add_argument("--texts", type=Path, required=True, help="folder of the value texts")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--own", type=int, default=8000, help="pairs made from the value texts")
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stop", type=float, default=math.inf, help="unix time to stop at")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
