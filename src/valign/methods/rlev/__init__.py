"""RLEV: reinforcement learning in which every question has its own value (arXiv 2510.20187)."""

from valign.methods.rlev.reward import Weighting, advantages, scales
from valign.methods.rlev.training import Question, Settings, says_the_answer, train

__all__ = [
    "Question", "Settings", "Weighting", "advantages", "says_the_answer", "scales", "train",
]  # fmt: skip
