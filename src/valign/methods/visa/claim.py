"""Which training a folder holds, so that another one never goes on from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valign.corpora.triplets import Triplet
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.reward import Reward
from valign.methods.visa.rewriter import Rewriter

if TYPE_CHECKING:
    from valign.methods.visa.training import Settings

_NOTE = "training.json"


def description(
    phase: str,
    rewriter: Rewriter,
    triplets: Sequence[Triplet],
    settings: Settings,
    reward: Reward | None,
) -> dict[str, Any]:
    """What decides the weights that a phase ends with; JSON-able, texts as digests."""
    told: dict[str, Any] = {"phase": phase, **asdict(settings)}
    del told["save_every"]  # changes what a stop costs, and no result
    told["model"] = rewriter.lm.fingerprint
    told["request"] = _digest(rewriter.card)
    told["triplets"] = _digest([asdict(triplet) for triplet in triplets])
    if phase == "grpo" and reward is not None:
        told["reward"] = [
            reward.detector.name, getattr(reward.detector, "fingerprint", None),
            reward.fidelity.name, *reward.weights, reward.floor, reward.question,
        ]  # fmt: skip
    return told


def claim(folder: Path, training: Mapping[str, Any]) -> None:
    """Note which training a folder holds, or see that it is this one.

    Raises:
        RewriteError: it holds another one; names what differs.
    """
    note = folder / _NOTE
    told = json.loads(json.dumps(training))
    if note.is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        other = sorted(k for k in {*kept, *told} if kept.get(k) != told.get(k))
        if other:
            raise RewriteError(
                f"{folder} holds another training; it differs in {', '.join(other)}. Choose "
                "another folder, or delete this one to train anew."
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise RewriteError(
            f"{folder} is not empty, and does not say which training it holds. Choose another "
            "folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    part = note.with_suffix(".part")
    part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    part.replace(note)


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
