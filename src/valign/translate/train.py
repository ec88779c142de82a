"""Train the translator: one command, which continues where it was interrupted.

    python -m valign.translate.train --seed 1 --work WORK --out src/valign/translate/weights

Lower layers stay frozen; upper layers and readers are tuned on the written requests, two thirds of
the labelled shifts, and requests composed anew each epoch (`material`). Validation rows set the
thresholds and calibrate the confidence; the held-out third of the shifts is never read here.
Several runs from one start over other orders are averaged (model soups, arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from valign.detect.backbone import MINILM, Backbone
from valign.translate.figures import exact_signs, figures
from valign.translate.head import ShiftHead, ShiftOutput, shift_loss
from valign.translate.material import epoch_rows, written_rows
from valign.translate.model import Decision, EnglishTranslator, Readings
from valign.translate.notation import CODES, Labelled

VALUES = tuple(CODES.values())
_WEIGHT = {"shifts": 2.0, "readers": 1.5, "asks": 1.2, "nothing": 1.0, "composed": 0.6, "like": 0.4}
"""Weight of a row in the loss, by where it comes from."""
_CHECKPOINT_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """What a training run is made of.

    Attributes:
        composed: composed requests an epoch, beside the written ones.
        repeats: guises of every written row an epoch.
        frozen_layers: layers of the encoder that stay as they are.
        members: runs from one start whose weights are averaged.
    """

    name: str = "english-1"
    seed: int = 1
    epochs: int = 7
    composed: int = 1400
    repeats: int = 1
    frozen_layers: int = 3
    max_tokens: int = 64
    batch: int = 32
    layer_rate: float = 3e-4
    reader_rate: float = 2e-3
    smoothing: float = 0.02
    backbone: str = MINILM
    members: int = 2


def train(recipe: Recipe, work: Path) -> EnglishTranslator:
    """Train, set the decision and return a translator; `work` holds the checkpoint."""
    work.mkdir(parents=True, exist_ok=True)
    written, validation = written_rows()
    backbone = Backbone(recipe.backbone)
    members = []
    for member in range(recipe.members):
        torch.manual_seed(recipe.seed)  # one start for all
        head = ShiftHead.over(backbone, frozen_layers=recipe.frozen_layers, values=VALUES)
        kept = work / f"{recipe.name}-{recipe.seed}-{member}.ckpt"
        _tune(head, backbone, written, recipe, recipe.seed + 100 * member, kept)
        members.append(head.state_dict())
    head.load_state_dict(
        {name: torch.stack([m[name].float() for m in members]).mean(0) for name in members[0]}
    )
    settings = asdict(recipe) | {"values": list(VALUES)}
    found = EnglishTranslator(backbone, head, settings)
    readings = found.read([row.text for row in validation])
    found.decision = decide(readings, as_array(validation))
    return found


def as_array(rows: Sequence[Labelled]) -> np.ndarray:
    """The rows' shifts, (n, n_values)."""
    return np.array([[row.changes.get(value, 0.0) for value in VALUES] for row in rows])


def _tune(
    head: ShiftHead,
    backbone: Backbone,
    written: Sequence[Labelled],
    recipe: Recipe,
    order: int,
    saved: Path,
) -> None:
    plan = [
        batch
        for epoch in range(recipe.epochs)
        for batch in _batches(written, backbone, recipe, order, epoch)
    ]
    readers = [p for name, p in head.named_parameters() if not name.startswith("layers.")]
    optimiser = torch.optim.AdamW(
        [{"params": head.layers.parameters(), "lr": recipe.layer_rate},
         {"params": readers, "lr": recipe.reader_rate}],
        weight_decay=0.02,
    )  # fmt: skip
    warm = max(1, len(plan) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda t: min((t + 1) / warm, (len(plan) - t) / max(1, len(plan) - warm))
    )
    step = 0
    if saved.is_file():
        state = torch.load(saved, weights_only=True)
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        step = state["step"]
    head.train()
    began, first = time.monotonic(), step
    while step < len(plan):
        torch.manual_seed(order * 1_000_003 + step)  # dropout is the same after a resume
        loss = _loss(head, backbone, plan[step], recipe)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        step += 1
        if step % _CHECKPOINT_EVERY == 0 or step == len(plan):
            unfinished = saved.with_suffix(".tmp")
            torch.save({"head": head.state_dict(), "optimiser": optimiser.state_dict(),
                        "schedule": schedule.state_dict(), "step": step}, unfinished)  # fmt: skip
            os.replace(unfinished, saved)
            left = (time.monotonic() - began) / (step - first) * (len(plan) - step)
            print(f"step {step}/{len(plan)}  loss {loss.item():.3f}  {left:.0f} s left", flush=True)
    head.eval()


def _batches(
    written: Sequence[Labelled], backbone: Backbone, recipe: Recipe, order: int, epoch: int
) -> list[list[tuple[list[int], Labelled]]]:
    """An epoch's batches of tokenised rows of like length, in random order."""
    rows = epoch_rows(
        written, seed=order * 1000 + epoch, composed=recipe.composed, repeats=recipe.repeats
    )
    ids = backbone.tokenize([row.text for row in rows], max_tokens=recipe.max_tokens)
    rng = np.random.default_rng((order, epoch))
    batches = []
    for start in range(0, len(rows), recipe.batch * 16):
        stretch = sorted(range(start, min(start + recipe.batch * 16, len(rows))),
                         key=lambda i: (len(ids[i]), i))  # fmt: skip
        for at in range(0, len(stretch), recipe.batch):
            batches.append([(ids[i], rows[i]) for i in stretch[at : at + recipe.batch]])
    return [batches[k] for k in rng.permutation(len(batches))]


def _loss(
    head: ShiftHead, backbone: Backbone, batch: list[tuple[list[int], Labelled]], recipe: Recipe
) -> Tensor:
    ids, mask = backbone.pad([tokens for tokens, _ in batch])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lower = backbone.lower(ids, mask, upto=recipe.frozen_layers)
    rows = [row for _, row in batch]
    weight = torch.tensor([_WEIGHT[row.source] for row in rows])
    shifts = torch.from_numpy(as_array(rows)).float()
    with torch.autocast("cpu", torch.bfloat16):
        out = head(lower, mask)
    out = ShiftOutput(out.signs.float(), out.sizes.float(), out.nothing.float())
    return shift_loss(out, shifts, weight, smoothing=recipe.smoothing)


def decide(readings: Readings, wanted: np.ndarray) -> Decision:
    """Thresholds of the best mean of cosine, exact signs and empty F1; then the confidence curve.

    Args:
        wanted: (n, n_values), the validation rows' shifts.
    """

    def worth(gate: float, change: float) -> float:
        got = figures(readings.shifts(Decision(gate, change)), wanted)
        precision, recall = got["empty precision"], got["empty recall"]
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        return got["cosine"] + got["exact signs"] + float(np.nan_to_num(f1))

    gates, changes = np.linspace(0.2, 0.8, 13), np.linspace(0.25, 0.65, 17)
    gate, change = max(product(gates.tolist(), changes.tolist()), key=lambda pair: worth(*pair))
    shifts = readings.shifts(Decision(gate, change))
    evidence, right = readings.log_probability(shifts), exact_signs(shifts, wanted)

    def misfit(theta: np.ndarray) -> float:
        margin = theta[0] * evidence + theta[1]
        return float(
            np.logaddexp(0, np.where(right, -margin, margin)).mean() + 1e-3 * theta @ theta
        )

    slope, offset = minimize(misfit, np.array([1.0, 0.0]), method="L-BFGS-B").x
    return Decision(gate, change, (float(slope), float(offset)))


def report(translator: EnglishTranslator, rows: Sequence[Labelled]) -> str:
    """Figures on rows, in one line."""
    readings = translator.read([row.text for row in rows])
    got = figures(readings.shifts(translator.decision), as_array(rows))
    return "  ".join(f"{name} {value:.3f}" for name, value in got.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m valign.translate.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, help="folder of the translator (default: WORK/SEED)")
    parser.add_argument("--members", type=int, default=Recipe.members, help="runs averaged")
    given = parser.parse_args(arguments)
    recipe = Recipe(seed=given.seed, epochs=given.epochs, members=given.members)
    found = train(recipe, given.work)
    found.save(given.out or given.work / str(recipe.seed))
    print("validation:", report(found, written_rows()[1]))
    print("decision:", found.decision)


if __name__ == "__main__":
    main()
