"""The bench: fit, set the dose, generate baseline and steered rows, judge, keep.

All targets of a method are generated together: rows of one batch carry different controls, so a
whole leakage matrix is a few batched generations.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch

import valign
from valign.control import Control, ControlFileError, RewriteControl, load
from valign.lm import DoseMeter, HostModel, generate, token_logprobs
from valign.lm.errors import UnsupportedSiteError
from valign.lm.render import Prompt
from valign.methods import get_method
from valign.study.battery import Ask, Battery
from valign.study.folder import RunFolder
from valign.study.plan import MethodChoice, Plan
from valign.study.results import DetectorInfo, ModelInfo, Reading, Row
from valign.study.timing import peak_memory_mib, time_rounds
from valign.values import Profile

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, rows done, rows in all)."""


def identity(plan: Plan, lm: HostModel, battery: Battery) -> dict[str, Any]:
    """Everything that decides a run's rows; `batch_size` is left out, it changes none."""
    return {
        "valign": valign.__version__,
        "model": lm.name,
        "model_fingerprint": lm.fingerprint,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "battery": battery.name,
        "system": battery.system.name,
        "judge": battery.judge,
        "judge_fingerprint": battery.judge_fingerprint,
        "methods": [m.label for m in plan.methods],
        "targets": [str(t) for t in plan.targets],
        "texts": _texts(plan, battery),
        **{k: v for k, v in asdict(plan).items() if k not in ("methods", "targets", "batch_size")},
    }


def _texts(plan: Plan, battery: Battery) -> str:
    """Hash of everything fitted on and asked, so that a corpus that was changed is noticed."""
    fitted = [battery.corpus(seed).fingerprint for seed in plan.seeds]
    asked = [
        (ask.id, ask.text)
        for seed in plan.seeds
        for ask in battery.dilemmas(seed, plan.prompts) + battery.neutral(seed, plan.neutral)
    ]
    return hashlib.sha256(json.dumps([fitted, asked]).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class _Job:
    """One answer that is still to be made; `control` still has its gate."""

    ask: Ask
    control: Control | None
    target: str
    seed: int


class Bench:
    """Runs a plan into a folder; run it again and it continues where it stopped.

    Args:
        lm, plan, battery: what to run, on what, judged by whom.
        folder: where everything is kept.
        progress: called after every batch.
    """

    def __init__(
        self,
        lm: HostModel,
        plan: Plan,
        battery: Battery,
        folder: RunFolder,
        *,
        progress: Progress | None = None,
    ):
        self.lm, self.plan, self.battery, self.folder = lm, plan, battery, folder
        self._progress = progress or (lambda what, done, total: None)
        self._meters: dict[int, DoseMeter] = {}
        self._fitted: tuple[tuple[str, str, int], Control, float] | None = None
        self._cost = folder.cost()
        arms = sum(len(plan.doses_of(method)) for method in plan.methods)
        asked = sum(
            len(battery.dilemmas(seed, plan.prompts)) + len(battery.neutral(seed, plan.neutral))
            for seed in plan.seeds
        )
        self.total = asked * (1 + arms * len(plan.targets))
        self._done = 0

    def run(self) -> None:
        """Make every row of the plan that the folder does not hold yet.

        Controls come first, and those of the last-named methods before the baselines': what
        cannot be fitted or dosed on this model is refused before any answer is made.
        """
        for seed, method in product(self.plan.seeds, reversed(self.plan.methods)):
            for target, dose in product(self.plan.targets, self.plan.doses_of(method)):
                self._control(method, target, dose, seed)
        for seed in self.plan.seeds:
            self._arm("none", None, seed, {"": None})
            for method in self.plan.methods:
                for dose in self.plan.doses_of(method):
                    self._arm(method.label, dose, seed, self._lazy(method, dose, seed))
        for method in self.plan.methods:
            for dose in self.plan.doses_of(method):
                self._time(method, dose)

    def _time(self, method: MethodChoice, dose: float | None) -> None:
        """Time an arm against the unsteered model, once, with its first control."""
        spent = self.spent(method.label, dose)
        if method.name == "none" or "rounds" in spent:
            return
        self._progress(f"timing {method.label}", self._done, self.total)
        seed = self.plan.seeds[0]
        control = self._control(method, self.plan.targets[0], dose, seed)
        prompts = [ask.prompt for ask in self.battery.dilemmas(seed, self.plan.prompts)]
        spent["rounds"] = time_rounds(self.lm, prompts, control)
        spent["peak_memory_mib"] = peak_memory_mib(self.lm)
        self.folder.write_cost(self._cost)

    def answer(
        self, choice: MethodChoice, target: Profile | None, dose: float | None, seed: int
    ) -> None:
        """Make the rows of one method towards one target; None is the unsteered model."""
        if target is None:
            self._arm("none", None, seed, {"": None})
        else:
            make = partial(self._control, choice, target, dose, seed)
            self._arm(choice.label, dose, seed, {str(target): make})

    def _lazy(
        self, method: MethodChoice, dose: float | None, seed: int
    ) -> dict[str, Callable[[], Control | None]]:
        return {
            str(t): (lambda t=t: self._control(method, t, dose, seed)) for t in self.plan.targets
        }

    def _control(
        self, choice: MethodChoice, target: Profile, dose: float | None, seed: int
    ) -> Control | None:
        """A calibrated control, from the folder if it is there already."""
        if choice.name == "none":
            return None
        path = self.folder.control_file(choice.label, str(target), dose, seed)
        if path.is_file():
            try:
                return load(path)
            except ControlFileError as error:
                raise ControlFileError(
                    f"{error} Delete the file, and the same command fits it again."
                ) from None
        self._progress(f"fitting {choice.label} towards {target}", self._done, self.total)
        control, fit_seconds = self._fit(choice, target, seed)
        began = time.perf_counter()
        meter = self._meter(seed)
        if isinstance(control, RewriteControl):
            pass  # no token of the model moves: there is no dose to measure
        elif dose is None:
            measured = asdict(meter.measure(control))
            control = replace(
                control, provenance={**control.provenance, "dose": {"asked": None, **measured}}
            )
        else:
            control = meter.set(control, dose)
        spent = self.spent(choice.label, dose)
        spent["fit_seconds"] += fit_seconds + time.perf_counter() - began
        control.save(path)
        return control

    def _fit(self, choice: MethodChoice, target: Profile, seed: int) -> tuple[Control, float]:
        """A control before its dose, and the seconds it took; the last one serves all doses."""
        key = (choice.label, str(target), seed)
        if self._fitted is None or self._fitted[0] != key:
            began = time.perf_counter()
            method = get_method(choice.name, **choice.settings)
            try:
                control = method.fit(self.lm, self.battery.corpus(seed), target)
            except UnsupportedSiteError as error:
                raise UnsupportedSiteError(
                    f"{choice.label} cannot run on {self.lm.name}: {error}"
                ) from None
            self._fitted = key, control, time.perf_counter() - began
        return self._fitted[1:]

    def _meter(self, seed: int) -> DoseMeter:
        if seed not in self._meters:
            self._meters[seed] = DoseMeter(
                self.lm,
                self.battery.dose_prompts(seed, self.plan.dose_prompts),
                max_new_tokens=min(self.plan.max_new_tokens, 48),
                batch_size=self.plan.batch_size,
            )
        return self._meters[seed]

    @property
    def model(self) -> ModelInfo:
        """The host model as it stands in results."""
        return ModelInfo(
            name=self.lm.name,
            fingerprint=self.lm.fingerprint,
            parameters=sum(p.numel() for p in self.lm.model.parameters()),
            dtype=str(self.lm.dtype).removeprefix("torch."),
            device=str(self.lm.device),
        )

    @property
    def detectors(self) -> DetectorInfo:
        """Who judges, as it stands in results."""
        return DetectorInfo(
            judge=self.battery.judge,
            judge_fingerprint=self.battery.judge_fingerprint,
            tune=self.battery.tune,
        )

    def spent(self, label: str, dose: float | None) -> dict[str, Any]:
        """Seconds, tokens, seconds of fitting and timed rounds of a method at a dose."""
        zero = {"seconds": 0.0, "tokens": 0.0, "fit_seconds": 0.0}
        return self._cost.setdefault(f"{label} @ {dose}", zero)

    def _arm(self, label: str, dose: float | None, seed: int, controls: dict[str, Any]) -> None:
        """All rows of one method at one dose under one seed, every target."""
        asks = self.battery.dilemmas(seed, self.plan.prompts)
        quiet = self.battery.neutral(seed, self.plan.neutral)
        readings: tuple[tuple[Reading, list[Ask]], ...] = (("ungated", asks), ("neutral", quiet))
        for reading, questions in readings:
            jobs = [
                (ask, target)
                for target, ask in product(controls, questions)
                if not self.folder.has((label, target, dose, seed, ask.id, reading))
            ]
            skipped = len(questions) * len(controls) - len(jobs)
            self._advance(label, skipped)
            made = {t: controls[t]() for t in dict.fromkeys(t for _, t in jobs) if controls[t]}
            todo = [_Job(ask, made.get(target), target, seed) for ask, target in jobs]
            # Large chunks let generation sort by length; small ones lose less when killed.
            size = self.plan.batch_size * 4
            for begin in range(0, len(todo), size):
                chunk = todo[begin : begin + size]
                self.folder.append(self._answer(chunk, label, dose, reading))
                self.folder.write_cost(self._cost)
                self._advance(label, len(chunk))

    def _advance(self, label: str, rows: int) -> None:
        self._done += rows
        self._progress(label, self._done, self.total)

    def _gates(
        self,
        jobs: Sequence[_Job],
        prompts: Sequence[Prompt],
        reading: Reading,
        seen: Sequence[bool | None],
    ) -> Sequence[bool | None]:
        """What each row's gate said, also where the reading held it open."""
        if reading == "neutral" or all(_as_read(j.control, reading) is j.control for j in jobs):
            return seen
        asked = generate(
            self.lm,
            prompts,
            [job.control for job in jobs],
            max_new_tokens=1,
            batch_size=self.plan.batch_size,
        )
        return [receipt.gate for receipt in asked.receipts]

    def _answer(
        self, jobs: Sequence[_Job], label: str, dose: float | None, reading: Reading
    ) -> Iterator[Row]:
        plan, lm = self.plan, self.lm
        asks = [job.ask for job in jobs]
        prompts = [ask.prompt for ask in asks]
        acting = {id(job.control): _as_read(job.control, reading) for job in jobs}
        began = time.perf_counter()
        said = generate(
            lm,
            prompts,
            [acting[id(job.control)] for job in jobs],
            max_new_tokens=plan.max_new_tokens,
            temperature=0.0 if reading == "neutral" else plan.temperature,
            seed=[_stream(label, job) for job in jobs],
            batch_size=plan.batch_size,
        )
        spent = self.spent(label, dose)
        spent["seconds"] += time.perf_counter() - began
        spent["tokens"] += sum(map(len, said.token_ids))
        gates = self._gates(jobs, prompts, reading, [r.gate for r in said.receipts])
        judged = self.battery.read(asks, said.texts)
        logprobs = token_logprobs(lm, prompts, said.token_ids, batch_size=plan.batch_size)
        for job, text, judgement, logp, gate, receipt in zip(
            jobs, said.texts, judged, logprobs, gates, said.receipts, strict=True
        ):
            yield Row(
                run=self.folder.path.name,
                method=label,
                target=job.target,
                dose=dose,
                seed=job.seed,
                prompt_id=job.ask.id,
                reading=reading,
                prompt=job.ask.text,
                answer=text,
                scores=judgement.scores,
                aspects=judgement.aspects,
                fluent=judgement.fluent,
                facts=judgement.facts,
                facts_kept=judgement.facts_kept,
                facts_wrong=judgement.facts_wrong,
                nll=float(-logp.sum()) if torch.isfinite(logp).all() else None,
                tokens=len(logp),
                gate_open=gate,
                touched=receipt.tokens,
                size=receipt.size,
            )


def _stream(label: str, job: _Job) -> int:
    """Sampling seed of a row.

    Steered and unsteered answers to a prompt share their stream of random numbers, so that a
    control that does nothing changes nothing and differences are paired. The row `none`, asked
    as a method, gets other streams: it shows what chance alone looks like.
    """
    other = f"{job.target}" if label == "none" and job.target else ""
    digest = hashlib.sha256(f"{job.seed}|{job.ask.id}|{other}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def _as_read(control: Control | None, reading: Reading) -> Control | None:
    """The strict reading holds the gate open; neutral questions are asked as deployed."""
    return control.ungated() if control is not None and reading == "ungated" else control
