"""From questions to a control, with what it gets right before and after on other questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from valign.control.weights import WeightsControl, from_peft
from valign.lm import HostModel, generate
from valign.measure.bootstrap import Resampling
from valign.measure.exam import Exam, exam
from valign.methods.errors import FitError, MethodSettingError
from valign.methods.progress import report
from valign.methods.rlev.questions import Question, Verifier, says_the_answer
from valign.methods.rlev.settings import Settings
from valign.methods.rlev.training import check, train
from valign.values import Profile, load_system

ADAPTER = "rlev"
"""Name of the control's only adapter."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained control and its exam.

    Attributes:
        control: of kind `weights`; its target names no value.
        before, after: of the same judged questions, with paired resampling.
        judged: how many those are.
    """

    control: WeightsControl
    before: Exam
    after: Exam
    judged: int


def fit(
    lm: HostModel,
    taught: Sequence[Question],
    judged: Sequence[Question],
    folder: str | Path,
    settings: Settings | None = None,
    *,
    verifier: Verifier = says_the_answer,
) -> Fitted:
    """Train on some questions, answer others greedily before and after.

    Args:
        folder: for checkpoints and the adapter; the same call goes on from them.

    Raises:
        FitError: no questions on one side, or judged ones that are all worth nothing.
        MethodSettingError: `lora_rank=0`, which leaves no adapter to carry.
    """
    settings = settings or Settings()
    check(taught, settings)
    if not settings.lora_rank:
        raise MethodSettingError(
            "A control carries an adapter, and lora_rank=0 makes none. Give a rank such as 16, or "
            "train all weights from Python: valign.methods.rlev.train(...)."
        )
    if not any(q.value > 0 for q in judged):
        raise FitError(
            f"The {len(judged)} questions to judge on are all worth 0, so nothing can be weighed. "
            "Give values above 0, or hold out more: --set held_out=0.3."
        )
    report("answers before", 0, 0)
    before = sit(lm, judged, verifier, max_new_tokens=settings.max_new_tokens)
    adapter = from_peft(train(lm, taught, folder, settings, verifier=verifier), name=ADAPTER)
    report("answers after", 0, 0)
    control = WeightsControl(
        target=Profile.of(load_system("schwartz10")), adapters=(adapter,), weights={ADAPTER: 1.0}
    )
    after = sit(lm, judged, verifier, control=control, max_new_tokens=settings.max_new_tokens)
    made = dict(
        method=settings.name,
        settings=settings.settings,
        model=lm.name,
        model_fingerprint=lm.fingerprint,
        questions=dict(taught=len(taught), judged=len(judged)),
        exam=dict(before=asdict(before), after=asdict(after)),
    )
    control = WeightsControl(
        target=control.target, adapters=control.adapters, weights=control.weights, provenance=made
    )
    return Fitted(control, before, after, len(judged))


def sit(
    lm: HostModel,
    questions: Sequence[Question],
    verifier: Verifier = says_the_answer,
    *,
    control: WeightsControl | None = None,
    max_new_tokens: int = 128,
) -> Exam:
    """The exam of greedy answers; same questions, same draws, so two sittings are comparable."""
    right, lengths = answers(lm, questions, verifier, control, max_new_tokens)
    draws = Resampling.of(len(questions), seed=0)
    return exam(right, np.array([q.value for q in questions]), lengths, draws)


def answers(
    lm: HostModel,
    questions: Sequence[Question],
    verifier: Verifier,
    control: WeightsControl | None,
    max_new_tokens: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Which greedy answers are right, and their lengths in tokens; each (n,)."""
    said = generate(lm, [q.prompt for q in questions], control, max_new_tokens=max_new_tokens)
    right = [verifier(text, q) for text, q in zip(said.texts, questions, strict=True)]
    return np.array(right, float), np.array(list(map(len, said.token_ids)), float)
