"""Language models as judges, over any OpenAI-compatible endpoint."""

from valign.detect.judge.answers import Failure
from valign.detect.judge.errors import JudgeError, JudgeWarning
from valign.detect.judge.llm import JudgeReport, LLMJudge, PairReport
from valign.detect.judge.usage import Usage

__all__ = [
    "Failure",
    "JudgeError",
    "JudgeReport",
    "JudgeWarning",
    "LLMJudge",
    "PairReport",
    "Usage",
]
