"""How a model is trained on questions that are worth different amounts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from valign.methods.base import Configured
from valign.methods.rlev.reward import ALPHA, Weighting


class Settings(Configured):
    """RLEV: a right answer earns more where the question is worth more (arXiv 2510.20187).

        r(x, y) = s(x) correct(y),      s(x) = 1 + min(alpha v(x), 1)

    The model answers each question a few times; what an answer earns beside the others pushes its
    probability. v(x) is what the question is worth, such as its share of an exam's points: no human
    value. Helps where answers are right or wrong and some count more. Hurts where answers can be
    guessed: what the dear questions want is then said everywhere. Costs the generation and the
    training of a batch of answers a step.

    Rate, batch, generations, KL and rank are ours, untuned; the paper does not name most of them.
    """

    name: ClassVar[str] = "rlev"

    estimator: Literal["rloo", "grpo"] = "rloo"
    """`rloo`, or `grpo` with unscaled rewards (scaled ones would cancel s(x))."""
    weighting: Weighting = "value"
    """`value`, or a control: `uniform`, `shuffled`, `none`."""
    alpha: float = Field(default=ALPHA, ge=0)
    """Slope of s(x) (the paper: 10)."""
    steps: int = Field(default=200, ge=1)
    """Optimiser steps."""
    batch: int = Field(default=32, ge=2)
    """Answers a step; whole groups (the paper: 128)."""
    generations: int = Field(default=8, ge=2)
    """Answers a question."""
    rate: float = Field(default=1e-4, gt=0)
    """Highest learning rate; it falls to 0 in a line (the paper: 5e-7 on all weights of a 7B)."""
    beta: float = Field(default=0.0, ge=0)
    """KL coefficient."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the answers it learns from."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer (the paper: 1024)."""
    lora_rank: int = Field(default=16, ge=0)
    """Of the adapter on all linear layers; 0 trains all weights, as the paper does."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """Share of the questions that are not trained on and tell what came of it."""
    save_every: int = Field(default=50, ge=1)
    """Steps between checkpoints."""
    seed: int = 0
    """Of the order, the answers, `shuffled` and what is held out."""
