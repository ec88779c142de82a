"""RLEV: reinforcement learning in which every question has its own value (arXiv 2510.20187)."""

from valign.methods.rlev.fitting import Fitted, fit, sit
from valign.methods.rlev.questions import Question, Verifier, read_questions, says_the_answer, split
from valign.methods.rlev.reward import Weighting, advantages, scales
from valign.methods.rlev.settings import Settings
from valign.methods.rlev.training import train

__all__ = [
    "Fitted", "Question", "Settings", "Verifier", "Weighting", "advantages", "fit",
    "read_questions", "says_the_answer", "scales", "sit", "split", "train",
]  # fmt: skip
