"""The front of a weights control: which mixtures of its adapters nothing else beats.

    candidates w  ->  one batched generation, a mixture a row  ->  reward  ->  non-dominated set
                  ->  the set again on other prompts  ->  scores, hypervolume, taxes

Candidates are found on search prompts and judged on others: the best of many noisy points looks
better than it is. The reward is the judge's score unless a `Reward` gives it.

MVA (arXiv 2511.17579) searches {.1, ..., 1}^2 by grid on its validation prompts; 0, weights past 1,
other prompts for the result, and NSGA-II for three values and more are ours.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from valign.control import Control
from valign.control.weights import WeightsControl
from valign.lm import HostModel, generate
from valign.measure.front import front_of
from valign.study.battery import Ask, Battery
from valign.study.front_rows import FrontRows, Row
from valign.values import ValignError

if TYPE_CHECKING:
    import torch

    from valign.study.front_reward import Reward

Weights = tuple[float, ...]
Progress = Callable[[str, int, int], None]


class FrontError(ValignError, ValueError):
    """A control without a front, or a search that cannot be made."""


@dataclass(frozen=True)
class FrontPlan:
    """What is searched and asked.

    Attributes:
        low, high: range of every weight; 1 is an adapter as trained.
        steps: weights per value on the grid of two values.
        points: candidates in all for three values and more.
        search, judged: prompts that candidates are found on, and others that the set is judged on.
        neutral: questions that call for no value, asked for the judged set.
        temperature: of answers; rows of one prompt share their draws.
        seed: of prompts, draws and the search.
    """

    low: float = 0.0
    high: float = 1.5
    steps: int = 6
    points: int = 64
    search: int = 40
    judged: int = 80
    neutral: int = 20
    max_new_tokens: int = 96
    temperature: float = 0.0
    batch_size: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.low < self.high or self.steps < 2 or self.points < 8:
            raise FrontError(
                f"A search needs low < high, at least 2 steps and 8 points; got low={self.low}, "
                f"high={self.high}, steps={self.steps}, points={self.points}."
            )
        if min(self.search, self.judged) < 1:
            raise FrontError("A search needs at least one prompt to search on and one to judge on.")


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a search has looked at: mixtures and their mean scores on the search prompts.

    Attributes:
        weights: (n, k) numbers as tuples.
        scores: (n, k), the values' mean scores.
    """

    values: tuple[str, ...]
    weights: list[Weights] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)

    def points(self) -> np.ndarray:
        return np.stack(self.scores)

    def front(self, allowed: Callable[[Weights], bool] = lambda w: True) -> list[int]:
        """Numbers of the non-dominated candidates among those allowed."""
        among = [i for i, w in enumerate(self.weights) if allowed(w)]
        return [among[i] for i in front_of(self.points()[among])] if among else []


class Scorer:
    """Answers under many controls at once, read by the battery's judge; kept as it goes.

    Args:
        lm: the model.
        battery: asks and judges.
        rows: where finished answers are kept.
        plan: lengths, temperature and seed.
        reward: who scores the objectives; by default the battery's judge.
    """

    def __init__(
        self,
        lm: HostModel,
        battery: Battery,
        rows: FrontRows,
        plan: FrontPlan,
        *,
        reward: Reward | None = None,
        progress: Progress | None = None,
    ):
        self.reward = reward
        self._lm, self._battery, self._rows, self._plan = lm, battery, rows, plan
        self._progress = progress or (lambda what, done, total: None)

    def score(
        self, controls: Mapping[str, Control | None], asks: Sequence[Ask], *, what: str = "answers"
    ) -> dict[str, list[Row]]:
        """Rows of every control over the prompts, by name; those already kept are not made again.

        All missing rows go through the model together, each under its own control, in parts of a
        few batches that are written as they come.
        """
        wanted = [(name, ask) for name in controls for ask in asks]
        missing = [(n, a) for n, a in wanted if (n, a.key) not in self._rows]
        part = 4 * self._plan.batch_size
        for begin in range(0, len(missing), part):
            self._progress(what, begin, len(missing))
            self._make(controls, missing[begin : begin + part])
        self._progress(what, 1, 1)
        return {name: [self._rows[name, ask.key] for ask in asks] for name in controls}

    def _make(
        self, controls: Mapping[str, Control | None], part: Sequence[tuple[str, Ask]]
    ) -> None:
        plan = self._plan
        made = generate(
            self._lm,
            [ask.prompt for _, ask in part],
            [controls[name] for name, _ in part],
            max_new_tokens=plan.max_new_tokens,
            temperature=plan.temperature,
            seed=[_draws(plan.seed, ask.id) for _, ask in part],
            batch_size=plan.batch_size,
        )
        asks = [ask for _, ask in part]
        read = self._battery.read(asks, made.texts)
        given = self._rewards(asks, made.texts)
        self._rows.add(
            Row(
                name, ask.key, text, judged.scores, judged.fluent, judged.facts, judged.facts_kept,
                judged.facts_wrong, rewards,
            )
            for (name, ask), text, judged, rewards in zip(
                part, made.texts, read, given, strict=True
            )
        )  # fmt: skip

    def _rewards(
        self, asks: Sequence[Ask], answers: Sequence[str]
    ) -> Sequence[dict[str, float] | None]:
        if self.reward is None:
            return [None] * len(asks)
        scores = self.reward.score([ask.prompt for ask in asks], answers)
        names = self.reward.objectives
        return [dict(zip(names, map(float, row), strict=True)) for row in scores]


def objectives(control: WeightsControl) -> tuple[str, ...]:
    """The values that the control has an adapter for, in order.

    Raises:
        FrontError: fewer than two.
    """
    known = control.target.system
    found = tuple(a.name for a in control.adapters if a.name in known.names)
    if len(found) < 2:
        raise FrontError(
            "A front needs adapters for two values or more; this control has "
            f"{', '.join(a.name for a in control.adapters)}. Fit with --values a,b."
        )
    return found


def mixture(values: Sequence[str], weights: Sequence[float]) -> str:
    """Name of a mixture: `benevolence=1,power=0.5`."""
    return ",".join(f"{v}={w:g}" for v, w in zip(values, weights, strict=True))


def search_front(
    scorer: Scorer, control: WeightsControl, asks: Sequence[Ask], plan: FrontPlan
) -> Candidates:
    """Look at mixtures: all of a grid for two values, an evolving set (NSGA-II) for more.

    Weights of adapters that stand for no value stay as they are.
    """
    values = objectives(control)
    found = Candidates(values)
    proposals = _grid(values, plan) if len(values) == 2 else _evolve(values, plan, found)
    for batch in proposals:
        named = {
            mixture(values, w): control.with_weights(dict(zip(values, w, strict=True)))
            for w in batch
        }
        rows = scorer.score(named, asks, what=f"searching, {len(found.weights)} mixtures done")
        for w in batch:
            found.weights.append(w)
            found.scores.append(mean_scores(rows[mixture(values, w)], values))
    return found


def mean_scores(rows: Sequence[Row], values: Sequence[str]) -> np.ndarray:
    """Mean score of each value, or mean reward, (k,)."""
    return np.array([row.objectives(values) for row in rows], float).mean(0)


def adapters_digest(control: WeightsControl) -> str:
    """16 hex digits over what a control's mixtures share.

    Adapters, gate, and the weights of adapters that stand for no value: a mixture names the others.
    """
    digest = hashlib.sha256()
    for adapter in control.adapters:
        digest.update(adapter.name.encode())
        if adapter.name not in control.target.system.names:
            digest.update(f"={control.weights[adapter.name]}".encode())
        for name in sorted(adapter.factors):
            change = adapter.factors[name]
            digest.update(f"{name}{change.scale}".encode())
            digest.update(_bytes(change.a) + _bytes(change.b))
    if control.gate is not None:
        for site, (weight, bias) in sorted(
            control.gate.weights.items(), key=lambda item: str(item[0])
        ):
            digest.update(f"gate {site}".encode() + _bytes(weight) + _bytes(bias))
    return digest.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().float().cpu().contiguous().numpy().tobytes()


def _draws(seed: int, ask: str) -> int:
    """The same draws for one prompt under every control: differences are the controls'."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{ask}".encode()).digest()[:4], "big") >> 1


def _grid(values: Sequence[str], plan: FrontPlan) -> Iterator[list[Weights]]:
    line = [round(float(w), 4) for w in np.linspace(plan.low, plan.high, plan.steps)]
    yield list(itertools.product(line, repeat=len(values)))


def _evolve(values: Sequence[str], plan: FrontPlan, found: Candidates) -> Iterator[list[Weights]]:
    """Generations of NSGA-II by ask and tell; each is scored as one batch."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.evaluator import Evaluator
        from pymoo.core.problem import Problem
        from pymoo.problems.static import StaticProblem
    except ImportError:
        raise FrontError(
            "The search over three values and more needs pymoo: pip install 'valign[train]'."
        ) from None
    k = len(values)
    size = max(8, plan.points // 4)
    problem = Problem(n_var=k, n_obj=k, xl=plan.low, xu=plan.high)
    algorithm = NSGA2(pop_size=size, sampling=_start(k, size, plan))
    algorithm.setup(problem, termination=("n_gen", 1000), seed=plan.seed, verbose=False)
    seen: dict[Weights, int] = {}
    while len(found.weights) < plan.points:
        asked = algorithm.ask()
        drawn = np.round(asked.get("X"), 2)
        asked.set("X", drawn)
        rows = [tuple(float(w) for w in row) for row in drawn]
        fresh = [w for w in dict.fromkeys(rows) if w not in seen]
        fresh = fresh[: plan.points - len(found.weights)]
        begin = len(found.weights)
        if not fresh:
            break
        yield fresh
        seen |= {w: begin + i for i, w in enumerate(fresh)}
        worst = np.full(k, 1e3)  # the few that the budget leaves out
        costs = [-found.scores[seen[w]] if w in seen else worst for w in rows]
        Evaluator().eval(StaticProblem(problem, F=np.stack(costs)), asked)
        algorithm.tell(infills=asked)


def _start(k: int, size: int, plan: FrontPlan) -> np.ndarray:
    """Each value alone, all together, and a Latin hypercube."""
    from scipy.stats import qmc

    one = min(max(1.0, plan.low), plan.high)
    zero = min(max(0.0, plan.low), plan.high)
    known = [*(np.eye(k) * (one - zero) + zero), np.full(k, one), np.full(k, plan.high)]
    drawn = qmc.LatinHypercube(k, rng=plan.seed).random(max(size - len(known), 1))
    return np.vstack([known, plan.low + drawn * (plan.high - plan.low)])[:size]
