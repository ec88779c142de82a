"""Win rates of a front's mixtures against the plain model, by a language model in both orders.

    mixtures x judged prompts  ->  pairs (mixture's answer, plain answer)  ->  equal pairs once
    ->  two questions a pair and value  ->  share won, ties half

A pair counts 1 where the judge finds the mixture's answer to promote the value more in both orders,
0 where it finds so of the plain one, and 1/2 for a tie or where the orders disagree. Answers that
are the plain model's word for word are ties without a question (ours).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from valign.control import Control
from valign.control.weights import WeightsControl
from valign.detect.judge import JudgeWarning, LLMJudge, PairReport, Usage
from valign.measure.bootstrap import Resampling, counted
from valign.study.battery import Battery
from valign.study.front import (
    Candidates,
    FrontError,
    FrontPlan,
    Progress,
    Scorer,
    Weights,
    mixture,
)
from valign.study.front_result import PLAIN, Interval, Order, Wins, Won

SAME = -1
"""Stands for a pair in `Contest.pair` whose two answers are equal."""


@dataclass(frozen=True, eq=False)
class Contest:
    """Pairs that are to be judged; nothing has been asked yet.

    Attributes:
        values: for each of which every pair is judged.
        judged: which mixtures were taken, `front` or `all`.
        mixtures: weights of those, n of them.
        pairs: prompt, the mixture's answer, the plain model's; no two are equal.
        pair: number of the pair of each mixture and prompt, or `SAME`; shape (n, prompts).
    """

    values: tuple[str, ...]
    judged: str
    mixtures: list[Weights]
    pairs: list[tuple[str, str, str]]
    pair: np.ndarray

    @property
    def questions(self) -> int:
        """Questions to the judge, of which those answered before cost nothing."""
        return 2 * len(self.values) * len(self.pairs)


def corners(k: int, plan: FrontPlan) -> list[Weights]:
    """One weight at the top of its range and the others at the bottom, and all at the top."""
    low, high = round(plan.low, 4), round(plan.high, 4)
    alone = [tuple(high if j == i else low for j in range(k)) for i in range(k)]
    return [*alone, (high,) * k]


def contest(
    scorer: Scorer,
    control: WeightsControl,
    found: Candidates,
    battery: Battery,
    plan: FrontPlan,
    *,
    judged: str = "front",
) -> Contest:
    """The pairs of a front on the prompts it is judged on; answers still missing are made.

    Args:
        judged: `front` for the non-dominated candidates and the corners of the range, `all` for
            every candidate beside.

    Raises:
        FrontError: another word than these two.
    """
    if judged not in ("front", "all"):
        raise FrontError(f"Mixtures to judge are `front` or `all`, not {judged!r}.")
    values = found.values
    taken = [found.weights[i] for i in found.front()] + corners(len(values), plan)
    mixtures = list(dict.fromkeys(taken + (found.weights if judged == "all" else [])))
    asks = battery.dilemmas(plan.seed, plan.search + plan.judged)[plan.search :]
    controls: dict[str, Control | None] = {PLAIN: None} | {
        mixture(values, w): control.with_weights(dict(zip(values, w, strict=True)))
        for w in mixtures
    }
    rows = scorer.score(controls, asks, what="answers to compare")
    numbers: dict[tuple[str, str, str], int] = {}
    pair = np.full((len(mixtures), len(asks)), SAME)
    for m, w in enumerate(mixtures):
        for a, (ask, one, other) in enumerate(
            zip(asks, rows[mixture(values, w)], rows[PLAIN], strict=True)
        ):
            if one.answer != other.answer:
                key = (ask.text, one.answer, other.answer)
                pair[m, a] = numbers.setdefault(key, len(numbers))
    return Contest(values, judged, mixtures, list(numbers), pair)


def check_judge(judge: LLMJudge, value: str) -> None:
    """Have one pair judged, so that what would fail later fails before answers are made.

    Raises:
        JudgeError: the endpoint does not answer as expected; says what to check.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JudgeWarning)
        judge.compare(["Help them."], ["Leave them alone."], value, prompts=["What should I do?"])


def win_rates(
    given: Contest, judge: LLMJudge, *, seed: int = 0, progress: Progress | None = None
) -> Wins:
    """Have the pairs judged for every value.

    Stopped half-way it goes on from the judge's cache. Questions without a valid answer are
    counted in the result; their pairs are left out.

    Args:
        seed: of the intervals, which are over prompts.

    Raises:
        JudgeError: no pair got a valid answer for a value, or the server refuses such requests.
    """
    heard = progress or (lambda what, done, total: None)
    draws = Resampling.of(given.pair.shape[1], seed=seed)
    reports: dict[str, PairReport] = {}
    for value in given.values:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", JudgeWarning)
            reports[value] = judge.compare(
                [one for _, one, _ in given.pairs],
                [other for _, _, other in given.pairs],
                value,
                prompts=[prompt for prompt, _, _ in given.pairs],
                progress=partial(heard, f"judging {value}"),
            )
    rates = {v: _shares(report, given.pair, draws) for v, report in reports.items()}
    failed = Counter(
        str(failure)
        for report in reports.values()
        for both in report.failures
        for failure in both
        if failure is not None
    )
    one = next(iter(reports.values()))
    return Wins(
        judge=f"judge:{one.model}@{one.prompt_version}",
        judged=given.judged,
        prompts=given.pair.shape[1],
        questions=given.questions,
        same=int((given.pair == SAME).sum()),
        usage=asdict(Usage.total(report.usage for report in reports.values())),
        failures=dict(failed),
        order={
            v: Order(first_shown=_known(r.first_shown), disagreement=_known(r.disagreement))
            for v, r in reports.items()
        },
        points=[
            Won(
                weights=dict(zip(given.values, w, strict=True)),
                rates={v: rates[v][m] for v in given.values},
            )
            for m, w in enumerate(given.mixtures)
        ],
    )


def _shares(report: PairReport, pair: np.ndarray, draws: Resampling) -> Sequence[Interval | None]:
    """One share won a mixture, from choices of -1, 0 or 1."""
    choices = np.append(report.choices, 0.0)[pair].T  # the last, number SAME, is a tie
    found = counted(choices, draws, bottom=-1.0, top=1.0)
    valid = (~np.isnan(choices)).sum(axis=0)
    return [
        Interval(
            value=(found.value[m] + 1) / 2,
            low=(found.low[m] + 1) / 2,
            high=(found.high[m] + 1) / 2,
            n=int(n),
        )
        if n
        else None
        for m, n in enumerate(valid)
    ]


def _known(number: float) -> float | None:
    return None if np.isnan(number) else number
