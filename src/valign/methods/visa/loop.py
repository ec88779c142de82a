"""The closed loop: detect, translate, rewrite, check, and try again until both checks pass.

    1  original = detector(text)
    2  shift    = translator(instruction)          or a full profile
    3  target   = compose(original, shift)
    4  rewrite
    5  check    |detector(rewrite) - target|_2 and consistency; not good enough: draw again

A rewrite passes where its distance is at most `distance` (0.8, the paper's cut for success) and
at most half of what the text had to go (ours: otherwise a small shift passes unmoved), and its
consistency is above `consistency` (0.3, the paper's), and no fault is found in its facts (ours: at
0.3 a text may lose half of them). Retries draw several candidates at a higher temperature and keep
the best; numbers of tries are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from valign.detect import check_detector
from valign.methods.visa.errors import RewriteError
from valign.methods.visa.reward import Reward
from valign.methods.visa.rewriter import Task
from valign.methods.visa.target import changed, shift_vector, shifted, towards
from valign.values import Profile, ValueSystem


class Shift(Protocol):
    """What a translator returns: a mapping value -> shift that knows its confidence."""

    confidence: float

    def items(self) -> Any: ...


class Rewrites(Protocol):
    """A `Rewriter`, a `RemoteRewriter`, or anything that rewrites tasks in order."""

    @property
    def system(self) -> ValueSystem: ...

    @property
    def steps(self) -> int: ...

    def rewrite(
        self,
        tasks: Sequence[Task],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[str]: ...


class Translates(Protocol):
    """`valign.Translator`, or anything with its one method."""

    def translate(self, instruction: str) -> Shift: ...


@dataclass(frozen=True)
class Thresholds:
    """When a rewrite passes.

    Attributes:
        distance: largest L2 from the target.
        share: largest part of the original's distance that may be left.
        consistency: mean of forward and backward must be above it.
        confidence: translations below it are not acted on.
        facts: whether what drops, adds or contradicts a fact is turned away, too.
    """

    distance: float = 0.8
    share: float = 0.5
    consistency: float = 0.3
    confidence: float = 0.0
    facts: bool = True


@dataclass(frozen=True)
class Attempt:
    """One candidate and its check.

    Attributes:
        round: 0 is the greedy rewrite, later rounds are drawn.
        scores: value -> what the detector read.
        distance: L2 from the target.
        forward, backward: consistency with the source.
        reward: the weighted sum of the reward's parts.
        passed: whether the thresholds hold and no fault was found.
        faults: what became of facts, in words; looked for where the thresholds hold.
    """

    round: int
    text: str
    scores: dict[str, float]
    distance: float
    forward: float
    backward: float
    reward: float
    passed: bool
    faults: tuple[str, ...] = ()

    @property
    def consistency(self) -> float:
        return (self.forward + self.backward) / 2


@dataclass(frozen=True)
class Rewritten:
    """The outcome of one loop, with a trace of every step.

    Attributes:
        text: the rewrite; the source itself where nothing was to change.
        source, instruction: what was given.
        original: value -> score of the source.
        shift: value -> wanted change; empty where nothing about values was asked.
        confidence: of the translation; 1 where a shift or profile was given.
        target: value -> wanted score.
        attempts: every candidate, in order.
        chosen: which attempt the text is; None where nothing was to change.
        passed: whether the thresholds hold.
        warning: plain words where they do not.
    """

    text: str
    source: str
    instruction: str | None
    original: dict[str, float]
    shift: dict[str, float]
    confidence: float
    target: dict[str, float]
    attempts: tuple[Attempt, ...] = ()
    chosen: int | None = None
    passed: bool = True
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Wish:
    """A text and what should become of it; give exactly one of instruction, profile and shift.

    Attributes:
        instruction: a wish in words.
        profile: the scores wanted of its values; the others stay as they are.
        shift: value -> change, -2 to 2.
        whole: the profile speaks of every value: those it does not name should be absent.
        share: how far to go towards the profile.
        prompt: the question the text answers.

    Raises:
        RewriteError: an empty text, or none or several of the three.
    """

    text: str
    instruction: str | None = None
    profile: Profile | None = None
    shift: Mapping[str, float] | None = None
    whole: bool = False
    share: float = 1.0
    prompt: str | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise RewriteError("There is no text to rewrite.")
        given = (self.instruction, self.profile, self.shift)
        if sum(one is not None for one in given) != 1:
            raise RewriteError(
                "Say what to change, in one way: instruction='more security', "
                "profile=Profile.parse('security=+1', system), or shift={'security': 0.5}."
            )


@dataclass(frozen=True)
class Visa:
    """Rewrites texts to instructions or profiles.

    Attributes:
        rewriter: the model and its words.
        reward: the detector and the fidelity check that steer the loop.
        translator: for instructions; None refuses them.
        thresholds: when a rewrite passes.
        rounds: tries after the greedy one.
        candidates: drawn in each.
        temperature: of the draws.
        seed: of the draws.
        batch_size: rows that are rewritten together; changes no text.
    """

    rewriter: Rewrites
    reward: Reward
    translator: Translates | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    rounds: int = 2
    candidates: int = 8
    temperature: float = 1.0
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        check_detector(self.reward.detector, self.rewriter.system)

    def rewrite(self, text: str, **wish: Any) -> Rewritten:
        """Rewrite one text; the options are those of `Wish`."""
        return self.rewrite_all([Wish(text, **wish)])[0]

    def rewrite_all(self, wishes: Sequence[Wish]) -> list[Rewritten]:
        """Rewrite many texts, round by round in batches; only what has not passed goes on.

        Raises:
            RewriteError: an instruction without a translator, or a wish that cannot be read.
        """
        if not wishes:
            return []
        read = self.reward.detector.score([w.text for w in wishes], [w.prompt for w in wishes])
        jobs = [self._job(wish, row) for wish, row in zip(wishes, np.asarray(read), strict=True)]
        for number in range(self.rounds + 1):
            open_ = [job for job in jobs if job.open]
            if not open_:
                break
            self._round(number, open_)
        return [self._done(job) for job in jobs]

    def _job(self, wish: Wish, original: np.ndarray) -> _Job:
        system, steps = self.rewriter.system, self.rewriter.steps
        confidence, shift = 1.0, wish.shift
        if wish.profile is not None:
            if wish.profile.system.names != system.names:
                raise RewriteError(
                    f"The profile speaks of {wish.profile.system.name}, the rewriter of "
                    f"{system.name}. Write it over {system.name}."
                )
            named = np.array([wish.whole or n in wish.profile.named for n in system.names])
            moved = towards(original, wish.profile.array, share=wish.share, steps=steps)
            target = np.where(named, moved, original)
        else:
            if wish.instruction is not None:
                shift, confidence = self._translated(wish.instruction)
            target = shifted(original, shift_vector(system, shift or {}), steps=steps)
        changes = changed(original, target, system)
        start = Rewritten(
            text=wish.text,
            source=wish.text,
            instruction=wish.instruction,
            original=_named(system.names, original),
            shift={n: changes[n] - float(original[system.index(n)]) for n in changes},
            confidence=confidence,
            target=_named(system.names, target),
        )
        if not changes:
            start = replace(start, warning=self._idle(wish.instruction, confidence, shift))
        task = Task(wish.text, changes, now=start.original, prompt=wish.prompt)
        far = float(np.linalg.norm(original - target))
        limit = min(self.thresholds.distance, self.thresholds.share * far)
        return _Job(start, task, target, limit)

    def _translated(self, instruction: str) -> tuple[dict[str, float], float]:
        if self.translator is None:
            raise RewriteError(
                "An instruction needs a translator: Visa(..., translator=Translator.load())."
            )
        made = self.translator.translate(instruction)
        confidence = float(made.confidence)
        if confidence < self.thresholds.confidence:
            return {}, confidence
        wanted = {k: float(v) for k, v in made.items() if v}
        foreign = [name for name in wanted if name not in self.rewriter.system.names]
        if foreign:
            raise RewriteError(
                f"The translator wants a change of {', '.join(foreign)}, which the rewriter's "
                f"{self.rewriter.system.name} does not name. Load it for that system: "
                f"Translator.load(system={self.rewriter.system.name!r})."
            )
        return wanted, confidence

    def _idle(
        self, instruction: str | None, confidence: float, shift: Mapping[str, float] | None
    ) -> str:
        if instruction is not None and confidence < self.thresholds.confidence:
            return (
                f"The instruction was not understood well enough ({confidence:.2f}); the text "
                "stays as it is. Name the values: `more security, less power`."
            )
        if instruction is not None and not shift:
            return "The instruction asks for no change of values; the text stays as it is."
        return "The text already has these values; it stays as it is."

    def _round(self, number: int, jobs: Sequence[_Job]) -> None:
        """One try of every open job: the greedy rewrite first, then draws."""
        each = self.candidates if number else 1
        texts = self.rewriter.rewrite(
            [job.task for job in jobs for _ in range(each)],
            temperature=self.temperature if number else 0.0,
            seed=self.seed + number,
            batch_size=self.batch_size,
        )
        marks = self.reward.mark(
            [job.task.source for job in jobs for _ in range(each)],
            texts,
            np.repeat(np.stack([job.target for job in jobs]), each, axis=0),
            [job.task.prompt for job in jobs for _ in range(each)],
        )
        near = marks.distance <= np.repeat([job.limit for job in jobs], each)
        kept = marks.fidelity.mean(axis=1) > self.thresholds.consistency
        fit = near & kept & np.array([bool(text.strip()) for text in texts])
        faults = self._faults([jobs[place // each].task for place in range(len(texts))], texts, fit)
        for place, text in enumerate(texts):
            job = jobs[place // each]
            forward, backward = map(float, marks.fidelity[place])
            job.attempts.append(
                Attempt(
                    round=number,
                    text=text,
                    scores=_named(self.rewriter.system.names, marks.scores[place]),
                    distance=float(marks.distance[place]),
                    forward=forward,
                    backward=backward,
                    reward=float(marks.total[place]),
                    passed=bool(fit[place]) and not faults[place],
                    faults=faults[place],
                )
            )

    def _faults(
        self, tasks: Sequence[Task], texts: Sequence[str], fit: np.ndarray
    ) -> list[tuple[str, ...]]:
        """The faults of the texts that pass otherwise."""
        found: list[tuple[str, ...]] = [()] * len(texts)
        places = np.flatnonzero(fit).tolist() if self.thresholds.facts else []
        if places:
            told = self.reward.fidelity.faults(
                [tasks[i].source for i in places],
                [texts[i] for i in places],
                [tasks[i].prompt for i in places],
            )
            for i, reasons in zip(places, told, strict=True):
                found[i] = reasons
        return found

    def _done(self, job: _Job) -> Rewritten:
        if not job.attempts:
            return job.start
        chosen = max(
            range(len(job.attempts)),
            key=lambda i: (job.attempts[i].passed, job.attempts[i].reward, -i),
        )
        best = job.attempts[chosen]
        return replace(
            job.start,
            text=best.text,
            attempts=tuple(job.attempts),
            chosen=chosen,
            passed=best.passed,
            warning=None if best.passed else self._why(best, job.limit),
        )

    def _why(self, best: Attempt, limit: float) -> str:
        faults = []
        if best.distance > limit:
            faults.append(f"its values are {best.distance:.2f} from the target (limit {limit:.2f})")
        if best.consistency <= self.thresholds.consistency:
            faults.append(
                f"its consistency with the source is {best.consistency:.2f} "
                f"(limit {self.thresholds.consistency:.2f})"
            )
        if best.faults:
            faults.append(f"it does not keep the facts ({'; '.join(best.faults)})")
        return (
            "No rewrite passed; this is the best one: "
            f"{' and '.join(faults) or 'it is empty'}. Ask for a smaller change, more tries, or "
            "take another rewriter."
        )


@dataclass
class _Job:
    """A wish on its way."""

    start: Rewritten
    task: Task
    target: np.ndarray
    limit: float
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return bool(self.task.changes) and not any(a.passed for a in self.attempts)


def _named(names: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    return {name: round(float(score), 6) for name, score in zip(names, scores, strict=True)}
