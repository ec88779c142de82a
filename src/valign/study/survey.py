"""A questionnaire put to a model by many respondents, with what can be said about it.

survey = take(lm, load_questionnaire("portraits10"), people(24))
survey.report(draws).centred        # profile with intervals over respondents
compare(before, after, draws)       # drift between two checkpoints
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from valign.control import Control
from valign.lm import HostModel
from valign.measure import Estimates, MeasureError, Resampling
from valign.measure.drift import Drift, drift
from valign.measure.questionnaire import (
    Rates,
    SelfReport,
    expected_ratings,
    reply_rates,
    self_report,
    value_scores,
)
from valign.study.ask import Progress, Replies, Scoring, ask, questionnaire_questions
from valign.values.questionnaires import Questionnaire


@dataclass(frozen=True, eq=False)
class Survey:
    """One model's answers to one questionnaire.

    Attributes:
        model, fingerprint: who answered.
        settings: what decided which prompts were asked; two surveys are paired where it is equal.
    """

    model: str
    fingerprint: str
    questionnaire: Questionnaire
    settings: dict[str, Any]
    replies: Replies

    @property
    def ratings(self) -> np.ndarray:
        """(respondents, items, arrangements), NaN where there was no valid answer."""
        return expected_ratings(self.replies.probabilities, np.array(self.questionnaire.points))

    @property
    def middle(self) -> float:
        """Middle of the scale."""
        return (self.questionnaire.points[0] + self.questionnaire.points[-1]) / 2

    def draws(self, *, seed: int = 0, n_boot: int = 1000) -> Resampling:
        """Bootstrap draws over respondents.

        Raises:
            MeasureError: a single respondent; one answer has no interval.
        """
        if len(self.replies.status) < 2:
            raise MeasureError("One respondent gives no interval; ask two at least, better 24.")
        return Resampling.of(len(self.replies.status), seed=seed, n_boot=n_boot)

    def scores(self, *, raw: bool = False) -> np.ndarray:
        """(respondents, values), centred or raw."""
        return value_scores(
            self.ratings, self.questionnaire.key(), middle=self.middle,
            scored="raw" if raw else "centred",
        )  # fmt: skip

    def report(self, draws: Resampling) -> SelfReport:
        """The profile."""
        return self_report(self.ratings, self.questionnaire.key(), draws, middle=self.middle)

    def rates(self, draws: Resampling) -> Rates:
        """How the questions were answered."""
        r = self.replies
        return reply_rates(r.status, r.option, r.place, draws, label_mass=r.label_mass)


def take(
    lm: HostModel,
    questionnaire: Questionnaire,
    respondents: Sequence[str],
    *,
    control: Control | None = None,
    scoring: Scoring = "logprob",
    pairs: int = 1,
    shuffled: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Survey:
    """Put a questionnaire; arguments and errors as `ask`."""
    replies = ask(
        lm, questionnaire_questions(questionnaire), respondents, control=control, scoring=scoring,
        pairs=pairs, shuffled=shuffled, seed=seed, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    settings = dict(
        questionnaire=questionnaire.name, respondents=len(respondents), scoring=scoring,
        pairs=pairs, shuffled=shuffled, seed=seed,
    )  # fmt: skip
    return Survey(lm.name, lm.fingerprint, questionnaire, settings, replies)


def compare(
    before: Survey, after: Survey, draws: Resampling, *, target: str | None = None
) -> Drift:
    """Drift from one survey to the other.

    Args:
        target: the value that was meant to move.

    Raises:
        MeasureError: surveys with other settings, or a target that is not scored.
    """
    if before.settings != after.settings:
        raise MeasureError(
            f"Surveys must be alike to be paired: {before.settings} and {after.settings}."
        )
    values = before.questionnaire.values
    if target is not None and target not in values:
        raise MeasureError(f"{target!r} is not scored; values are {', '.join(values)}.")
    return drift(
        before.ratings, after.ratings, before.questionnaire.key(), draws, middle=before.middle,
        target=None if target is None else values.index(target), seed=before.settings["seed"],
    )  # fmt: skip


def as_json(thing: Any) -> Any:
    """Estimates, tests and arrays as plain JSON; what is not finite becomes null."""
    if isinstance(thing, Estimates):
        return [as_json(cell) for cell in thing.tolist()]
    if is_dataclass(thing):
        return {field.name: as_json(getattr(thing, field.name)) for field in fields(thing)}
    if isinstance(thing, dict):
        return {key: as_json(value) for key, value in thing.items()}
    if isinstance(thing, np.ndarray):
        return as_json(thing.tolist())
    if isinstance(thing, list | tuple):
        return [as_json(cell) for cell in thing]
    if isinstance(thing, np.generic):
        thing = thing.item()
    if isinstance(thing, float) and not math.isfinite(thing):
        return None
    return thing
