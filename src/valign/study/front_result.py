"""What a search of mixtures found, judged on fresh prompts: `front.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

import valign
from valign.control import Control
from valign.control.weights import WeightsControl
from valign.lm import HostModel
from valign.measure import Estimate
from valign.measure.bootstrap import Resampling, mean
from valign.measure.front import front_volume, preferred
from valign.study.battery import Battery
from valign.study.front import (
    Candidates,
    FrontError,
    FrontPlan,
    Scorer,
    adapters_digest,
    mean_scores,
    mixture,
)
from valign.study.front_rows import Row

if TYPE_CHECKING:
    from valign.study.front_reward import Reward

PLAIN = "plain"
"""Name of the model without control among the mixtures."""


class Interval(BaseModel):
    """A figure with its 95 % interval over `n` prompts."""

    model_config = ConfigDict(frozen=True)
    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, found: Estimate) -> Interval:
        return cls(value=found.value, low=found.low, high=found.high, n=found.n)


class Point(BaseModel):
    """One mixture, judged.

    Attributes:
        weights: value -> w.
        scores: the judge's, of every value of its system, so that what moved beside the wanted is
            seen; empty where nobody reads them.
        rewards: value -> raw reward, where the front was searched by one.
        fluent, facts_kept, facts_wrong: shares and counts per answer, where the judge reads them.
        neutral_unchanged: share of neutral questions answered word for word as without control.
    """

    weights: dict[str, float]
    scores: dict[str, Interval]
    fluent: Interval | None = None
    facts_kept: Interval | None = None
    facts_wrong: Interval | None = None
    neutral_unchanged: Interval | None = None
    rewards: dict[str, Interval] | None = None

    def objective(self, value: str) -> Interval:
        """What the front was searched by: the reward, or the judge's score."""
        return (self.scores if self.rewards is None else self.rewards)[value]


class Searched(BaseModel):
    """A candidate and its mean scores, or rewards, on the search prompts."""

    weights: dict[str, float]
    scores: dict[str, float]


class Rewarded(BaseModel):
    """Who gave the rewards, and in what unit; see `Reward`."""

    name: str
    unit: str


class Won(BaseModel):
    """How often a mixture's answers beat the plain model's.

    Attributes:
        rates: value -> share in [0, 1] of prompts won, a tie counting half; None where the judge
            gave no pair of valid answers.
    """

    weights: dict[str, float]
    rates: dict[str, Interval | None]


class Order(BaseModel):
    """What the order of the answers did to a judge; see `PairReport`. None is undefined."""

    first_shown: float | None
    disagreement: float | None


class Wins(BaseModel):
    """Win rates against the plain model, each pair judged in both orders.

    Attributes:
        judge: the model that judged and the version of its question.
        judged: `front` (with the corners of the range) or `all`.
        prompts: asked of every mixture.
        questions: put to the judge, two a pair and value; equal pairs are put once.
        same: answers, over all mixtures and prompts, that were the plain model's word for word:
            ties that nobody was asked about.
        usage: requests, cached answers and tokens of this run; see `Usage`.
        failures: why a question has no answer -> how many; such pairs are left out.
        order: value -> what the order did.
    """

    judge: str
    judged: str
    prompts: int
    questions: int
    same: int
    usage: dict[str, int]
    failures: dict[str, int]
    order: dict[str, Order]
    points: list[Won]


class FrontResult(BaseModel):
    """The content of `front.json`.

    Attributes:
        judge: who read the answers; gave the objectives too where `reward` is None.
        reference: the corner of the hypervolume; for rewards the plain model's means on the same
            prompts where no other was named.
        reward: who gave the objectives, where it was not the judge.
        wins: win rates by a language model, where one was asked.
        points: the non-dominated candidates of the search, judged on other prompts, where some
            may beat others after all.
        chosen: number of the point that the preference picked on the search prompts, or None.
    """

    format: str = "valign-front/1"
    model: str
    method: str
    values: list[str]
    judge: str
    plan: dict[str, float]
    reference: dict[str, float]
    hypervolume: Interval
    plain: Point
    points: list[Point]
    searched: list[Searched]
    preference: dict[str, object]
    chosen: int | None
    provenance: dict[str, object]
    reward: Rewarded | None = None
    wins: Wins | None = None

    def write(self, path: Path) -> Path:
        """Write it whole or not at all; rewards and wins stand in it only where there are any."""
        absent: dict[str, Any] = {}
        if self.reward is None:
            absent |= {
                "reward": True,
                "plain": {"rewards"},
                "points": {"__all__": {"rewards"}},
            }
        if self.wins is None:
            absent |= {"wins": True}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(
            json.dumps(self.model_dump(mode="json", exclude=absent), indent=1), "utf-8"
        )
        os.replace(partial, path)
        return path

    @classmethod
    def read(cls, path: Path) -> FrontResult:
        return cls.model_validate_json(path.read_text("utf-8"))


def judge_front(
    scorer: Scorer,
    control: WeightsControl,
    found: Candidates,
    battery: Battery,
    plan: FrontPlan,
    *,
    reference: Mapping[str, float] | None = None,
    keep: Mapping[str, float] | None = None,
    most: str | None = None,
    model: str = "",
) -> FrontResult:
    """Ask the front's mixtures on prompts the search has not seen.

    Args:
        reference: value -> the hypervolume's worst corner. Where not named, 0 for scores; for
            rewards, whose zero means nothing, the plain model on the same prompts, drawn together
            with the mixtures.
        keep, most: the preference, see `valign.measure.front.preferred`; by default an equal gain
            in all values counts, and no value may fall below the plain model.

    Raises:
        FrontError: a preference for a value that has no adapter, or too few prompts.
    """
    values = found.values
    for value in [*(reference or {}), *(keep or {}), *([most] if most else [])]:
        if value not in values:
            raise FrontError(f"{value} has no adapter here; there are {', '.join(values)}.")
    asks = battery.dilemmas(plan.seed, plan.search + plan.judged)
    if len(asks) <= plan.search:
        raise FrontError(
            f"{battery.name} has {len(asks)} prompts and {plan.search} are searched on: none is "
            "left to judge. Search on fewer."
        )
    fresh, neutral = asks[plan.search :], battery.neutral(plan.seed, plan.neutral)
    front = found.front()
    controls: dict[str, Control | None] = {PLAIN: None} | {
        mixture(values, found.weights[i]): control.with_weights(
            dict(zip(values, found.weights[i], strict=True))
        )
        for i in front
    }
    judged = scorer.score(controls, fresh, what="judging")
    calm = scorer.score(controls, neutral, what="neutral questions") if neutral else {}
    draws = Resampling.of(len(fresh), seed=plan.seed)
    names = list(controls)
    points = [
        _point(judged[name], calm.get(name, []), calm.get(PLAIN, []), draws, plan.seed,
               dict(zip(values, w, strict=True)))
        for name, w in zip(names, [(0.0,) * len(values), *(found.weights[i] for i in front)],
                           strict=True)
    ]  # fmt: skip
    named, rewarded = reference or {}, scorer.reward is not None
    table, plain = (
        np.array([[row.objectives(values) for row in judged[name]] for name in group])
        .transpose(1, 0, 2)
        for group in (names[1:], [PLAIN])
    )  # fmt: skip
    # From the plain model, gains are drawn; from a number, scores.
    from_plain = np.array([rewarded and v not in named for v in values])
    table = table - np.where(from_plain, plain, 0.0)
    floor = np.array([named.get(v, 0.0) for v in values])
    corner = np.where(from_plain, plain.mean((0, 1)), floor)
    start = scorer.score({PLAIN: None}, asks[: plan.search])[PLAIN]
    chosen = _choice(found, front, start, keep, most)
    return FrontResult(
        model=model,
        method=control.method,
        values=list(values),
        judge=battery.judge,
        plan={k: float(v) for k, v in vars(plan).items()},
        reference=dict(zip(values, corner.tolist(), strict=True)),
        hypervolume=Interval.of(front_volume(table, floor, draws)),
        plain=points[0],
        points=points[1:],
        searched=[
            Searched(weights=dict(zip(values, w, strict=True)),
                     scores=dict(zip(values, map(float, s), strict=True)))
            for w, s in zip(found.weights, found.scores, strict=True)
        ],
        preference=dict(keep=dict(keep or {}), most=most),
        chosen=chosen,
        provenance=dict(control.provenance),
        reward=Rewarded(name=scorer.reward.name, unit=scorer.reward.unit)
        if scorer.reward else None,
    )  # fmt: skip


def front_identity(
    lm: HostModel,
    control: WeightsControl,
    battery: Battery,
    plan: FrontPlan,
    reward: Reward | None = None,
) -> str:
    """What decides an answer beside its mixture and its prompt."""
    parts = [
        valign.__version__, lm.fingerprint, adapters_digest(control), battery.name, battery.judge,
        battery.judge_fingerprint, plan.max_new_tokens, plan.temperature, plan.seed,
        *([reward.name] if reward else []),
    ]  # fmt: skip
    return " ".join(map(str, parts))


def _choice(
    found: Candidates,
    front: Sequence[int],
    start: Sequence[Row],
    keep: Mapping[str, float] | None,
    most: str | None,
) -> int | None:
    """The preferred point by its scores on the search prompts, which judge nothing."""
    points = found.points()[list(front)]
    plain = mean_scores(start, found.values)
    values = found.values
    if most is not None:
        wanted = {values.index(v): share for v, share in (keep or {}).items()}
        return preferred(points, plain=plain, keep=wanted, most=values.index(most))
    floor = {values.index(v): share for v, share in (keep or {}).items()}
    reach = np.maximum(points.max(0) - plain, 1e-9)
    least = ((points - plain) / reach).min(1)  # the value that gains least, as a share of its best
    shared = np.column_stack([points, least])
    return preferred(shared, plain=np.append(plain, 0.0), keep=floor, most=len(values))


def _point(
    rows: Sequence[Row],
    calm: Sequence[Row],
    plain: Sequence[Row],
    draws: Resampling,
    seed: int,
    weights: dict[str, float],
) -> Point:

    def means(given: Sequence[dict[str, float]]) -> dict[str, Interval]:
        names = list(given[0])
        if not names:
            return {}
        found = mean(np.array([[row[v] for v in names] for row in given], float), draws)
        return {v: Interval.of(found.at(i)) for i, v in enumerate(names)}

    def share(part: str, whole: str | None = None) -> Interval | None:
        cells = []
        for row in rows:
            top, under = getattr(row, part), getattr(row, whole) if whole else 1
            cells.append(np.nan if top is None or not under else float(top) / under)
        found = np.array(cells)
        return None if np.isnan(found).all() else Interval.of(mean(found[:, None], draws).at(0))

    same = None
    if calm:
        equal = np.array([[float(a.answer == b.answer)] for a, b in zip(calm, plain, strict=True)])
        same = Interval.of(mean(equal, Resampling.of(len(equal), seed=seed)).at(0))
    return Point(
        weights=weights,
        scores=means([row.scores for row in rows]),
        fluent=share("fluent"),
        facts_kept=share("facts_kept", "facts"),
        facts_wrong=share("facts_wrong"),
        neutral_unchanged=same,
        rewards=None if rows[0].rewards is None else means([row.rewards or {} for row in rows]),
    )
