"""What a search of mixtures found, judged on fresh prompts: `front.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

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
    mixture,
)
from valign.study.front_rows import Row

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
        scores: of every value of the system, so that what moved beside the wanted is seen.
        fluent, facts_kept, facts_wrong: shares and counts per answer, where the judge reads them.
        neutral_unchanged: share of neutral questions answered word for word as without control.
    """

    weights: dict[str, float]
    scores: dict[str, Interval]
    fluent: Interval | None = None
    facts_kept: Interval | None = None
    facts_wrong: Interval | None = None
    neutral_unchanged: Interval | None = None


class Searched(BaseModel):
    """A candidate and its mean scores on the search prompts."""

    weights: dict[str, float]
    scores: dict[str, float]


class FrontResult(BaseModel):
    """The content of `front.json`.

    Attributes:
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

    def write(self, path: Path) -> Path:
        """Write it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(self.model_dump(mode="json"), indent=1), "utf-8")
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
        reference: value -> the hypervolume's worst corner; 0 where not named.
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
    corner = np.array([(reference or {}).get(v, 0.0) for v in values])
    table = np.array(
        [[[row.scores[v] for v in values] for row in judged[name]] for name in names[1:]]
    ).transpose(1, 0, 2)
    start = scorer.score({PLAIN: None}, asks[: plan.search])[PLAIN]
    chosen = _choice(found, front, start, keep, most)
    return FrontResult(
        model=model,
        method=control.method,
        values=list(values),
        judge=battery.judge,
        plan={k: float(v) for k, v in vars(plan).items()},
        reference=dict(zip(values, corner.tolist(), strict=True)),
        hypervolume=Interval.of(front_volume(table, corner, draws)),
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
    )  # fmt: skip


def front_identity(
    lm: HostModel, control: WeightsControl, battery: Battery, plan: FrontPlan
) -> str:
    """What decides an answer beside its mixture and its prompt."""
    parts = [
        lm.fingerprint, adapters_digest(control), battery.name, battery.judge, plan.max_new_tokens,
        plan.temperature, plan.seed,
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
    plain = np.array([[row.scores[v] for v in found.values] for row in start], float).mean(0)
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
    names = list(rows[0].scores)
    scores = mean(np.array([[row.scores[v] for v in names] for row in rows], float), draws)

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
        scores={v: Interval.of(scores.at(i)) for i, v in enumerate(names)},
        fluent=share("fluent"),
        facts_kept=share("facts_kept", "facts"),
        facts_wrong=share("facts_wrong"),
        neutral_unchanged=same,
    )
