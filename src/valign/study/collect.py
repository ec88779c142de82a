"""From rows to results: every number of a run, computed from `rows.jsonl` alone."""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import valign
from valign.control import ControlFileError, load
from valign.measure import Estimate, Paired, Resampling, control_matrix, leakage, see_slopes
from valign.measure.bootstrap import mean
from valign.measure.cost import relative_time
from valign.measure.facts import kept_rate, wrong_rate
from valign.measure.fluency import distinct_rate, perplexity, repetition_rate
from valign.measure.rate import rate
from valign.study.answers import Answers
from valign.study.battery import Battery, Explains
from valign.study.plan import MethodChoice, Plan
from valign.study.results import (
    Block,
    CorpusInfo,
    Cost,
    DetectorInfo,
    Dose,
    DoseCurve,
    DosePoint,
    Mark,
    Measured,
    Metrics,
    ModelInfo,
    Receipt,
    Results,
    Role,
    Row,
    Sample,
    SystemInfo,
    TargetResult,
)

Arm = tuple[str, float | None]
"""(method label, dose)."""

_SAMPLES = 8


class Collector:
    """Turns a run's rows into blocks with intervals.

    All numbers of a reading share one set of bootstrap draws over prompts, so differences between
    methods are paired.
    """

    def __init__(self, plan: Plan, battery: Battery, rows: Sequence[Row], *, n_boot: int = 1000):
        self.plan, self.battery = plan, battery
        self.system = battery.system
        self.targets = [str(target) for target in plan.targets]
        self._profiles = np.array([target.array for target in plan.targets])
        self._by: dict[tuple[str, str, str, float | None], dict[tuple[int, str], Row]] = (
            defaultdict(dict)
        )
        for row in rows:
            self._by[row.reading, row.method, row.target, row.dose][row.seed, row.prompt_id] = row
        self._units = {
            reading: sorted(self._by[reading, "none", "", None])
            for reading in ("ungated", "neutral")
        }
        self._aspects = sorted({aspect for row in rows for aspect in row.aspects})
        self._draws: dict[str, Resampling] = {}
        self._n_boot = n_boot

    def answers(self, reading: str, method: str, target: str, dose: float | None) -> Answers:
        found = self._by[reading, method, target, dose]
        return Answers([found.get(unit) for unit in self._units[reading]])

    def draws(self, reading: str) -> Resampling:
        if reading not in self._draws:
            units = self._units[reading]
            self._draws[reading] = Resampling.of(
                len(units), seed=0, n_boot=self._n_boot, clusters=[prompt for _, prompt in units]
            )
        return self._draws[reading]

    def paired(self, arm: Arm, aspect: str | None = None) -> Paired:
        """Presence of every value, unsteered and steered towards each target."""
        read = (self.system.names, self.battery.threshold, aspect)
        base = self.answers("ungated", "none", "", None).presence(*read)
        moved = [self.answers("ungated", arm[0], t, arm[1]).presence(*read) for t in self.targets]
        return Paired.of(base, np.stack(moved), targets=self._profiles)

    def block(self, choice: MethodChoice, dose: float | None, slopes: np.ndarray | None) -> Block:
        """One method at one dose."""
        arm = (choice.label, dose)
        paired, draws = self.paired(arm), self.draws("ungated")
        matrix = control_matrix(paired, draws)
        leak = leakage(paired, self.system, draws)
        excess = leakage(paired, self.system, draws, slopes=slopes) if slopes is not None else None
        aspects = {
            f"gain_{aspect}": control_matrix(self.paired(arm, aspect), draws)
            for aspect in self._aspects
        }
        targets = []
        for number, target in enumerate(self.targets):
            common = self._tax(arm, [target])
            targets.append(
                TargetResult(
                    target=target,
                    no_control=bool(leak.no_control[number]),
                    metrics=Metrics(
                        gain=_m(matrix.gain.at(number)),
                        **{key: _m(found.gain.at(number)) for key, found in aspects.items()},
                        leakage=_m(leak.mean.at(number)),
                        leakage_raw=_m(leak.mean_raw.at(number)),
                        excess_leakage=_m(excess.mean.at(number)) if excess else None,
                        nlr=_m(leak.nlr.at(number)),
                        nlr_raw=_m(leak.nlr_raw.at(number)),
                        nglr_in_group=_m(leak.nglr.at(number, 0)),
                        nglr_adjacent=_m(leak.nglr.at(number, 1)),
                        nglr_opposite=_m(leak.nglr.at(number, 2)),
                        in_group_share=_m(leak.in_group_share.at(number)),
                        headroom_leakage=_m(leak.headroom.at(number)),
                        **common,
                    ),
                    receipt=self._receipt(arm, target),
                )
            )
        summary = Metrics(
            gain=_m(matrix.mean_gain.at()),
            **{key: _m(found.mean_gain.at()) for key, found in aspects.items()},
            leakage=_m(leak.summary_mean.at()),
            excess_leakage=_m(excess.summary_mean.at()) if excess else None,
            nlr=_m(leak.summary_nlr.at()),
            **self._tax(arm, self.targets),
        )
        n_targets, n_values = len(self.targets), len(self.system)
        groups = leak.group_matrix.shape
        return Block(
            method=choice.label,
            kind="none",  # until the control on disk says otherwise
            role=self._role(choice.name),
            dose=dose,
            settings=dict(choice.settings),
            targets=targets,
            summary=summary,
            c0=[_m(matrix.c0.at(j)) for j in range(n_values)],
            c=[[_m(matrix.c.at(i, j)) for j in range(n_values)] for i in range(n_targets)],
            shift=[[_m(matrix.shift.at(i, j)) for j in range(n_values)] for i in range(n_targets)],
            group_leakage=[
                [_m(leak.group_matrix.at(i, j)) for j in range(groups[1])] for i in range(groups[0])
            ],
        )

    def _role(self, method: str) -> Role:
        if method in self.battery.ceilings:
            return "ceiling"
        return "baseline" if method in ("none", "random") else "method"

    def _tax(self, arm: Arm, targets: Sequence[str]) -> dict[str, Measured | None]:
        """Fluency, facts and neutral damage, over one target or several."""
        draws = self.draws("ungated")
        per = [self.answers("ungated", arm[0], t, arm[1]) for t in targets]
        fluent = [a.column(lambda r: r.fluent) for a in per]
        nll = np.nansum([a.column(lambda r: r.nll) for a in per], axis=0)
        tokens = np.nansum(
            [a.column(lambda r: r.tokens if r.nll is not None else 0) for a in per], axis=0
        )
        words = [[r.answer.split() if r else [] for r in a.rows] for a in per]
        repeats = np.mean([[repetition_rate(w) for w in one] for one in words], axis=0)
        distinct = np.mean([[distinct_rate(w) for w in one] for one in words], axis=0)
        found: dict[str, Measured | None] = {
            "perplexity": _m(perplexity(nll, tokens, draws)),
            "repetition": _m(mean(repeats, draws).at()),
            "distinct_2": _m(mean(distinct, draws).at()),
        }
        if np.isfinite(fluent).any():
            found["fluency"] = _m(mean(np.nanmean(fluent, axis=0), draws).at())
        facts, kept, wrong = (
            np.nansum([a.column(read) for a in per], axis=0)
            for read in (lambda r: r.facts, lambda r: r.facts_kept, lambda r: r.facts_wrong)
        )
        if facts.sum():
            found["facts_kept"] = _m(kept_rate(kept, facts, draws))
            found["facts_wrong"] = _m(wrong_rate(kept, wrong, draws))
        gates = [a.column(lambda r: r.gate_open) for a in per]
        if np.isfinite(gates).any():
            found["gate_open"] = _m(mean(np.nanmean(gates, axis=0), draws).at())
        return {**found, **self._quiet(arm, targets)}

    def _quiet(self, arm: Arm, targets: Sequence[str]) -> dict[str, Measured | None]:
        """What happened to neutral questions, control as deployed."""
        if not self._units["neutral"]:
            return {}
        draws = self.draws("neutral")
        base = self.answers("neutral", "none", "", None)
        per = [self.answers("neutral", arm[0], t, arm[1]) for t in targets]
        pairs = [(a, b) for one in per for a, b in zip(base.rows, one.rows, strict=True) if a and b]
        if not pairs:
            return {}
        same = [a.answer.strip() == b.answer.strip() for a, b in pairs]
        present = [
            np.abs(np.nan_to_num(one.presence(self.system.names, self.battery.threshold))).sum(
                axis=1
            )
            for one in per
        ]
        independent = len(per) == 1 and draws.n_units == draws.n_rows
        return {
            "neutral_unchanged": _m(
                rate(np.array(same, dtype=float))
                if independent
                else mean(np.reshape(same, (len(per), -1)).mean(axis=0), draws).at()
            ),
            "neutral_presence": _m(mean(np.mean(present, axis=0), draws).at()),
        }

    def _receipt(self, arm: Arm, target: str) -> Receipt:
        found = self.answers("ungated", arm[0], target, arm[1])
        rows = [row for row in found.rows if row is not None]
        sizes = found.column(lambda r: r.size)
        return Receipt(
            tokens=sum(row.tokens for row in rows),
            tokens_touched=sum(row.touched for row in rows),
            mean_size=_m(mean(sizes, self.draws("ungated")).at()) if any(sizes > 0) else None,
            requests=len(rows),
            gate_opened=sum(bool(row.gate_open) for row in rows),
        )

    def samples(self) -> list[Sample]:
        """Answers side by side: for each target the first prompts, at the middle dose."""
        found: list[Sample] = []
        for number, target in enumerate(self.targets):
            if len(found) >= max(_SAMPLES, len(self.targets)):
                break
            wanted = 1 if len(self.targets) > 2 else 3
            for unit in self._units["ungated"][number * wanted : (number + 1) * wanted]:
                rows = {"none": self._by["ungated", "none", "", None][unit]}
                for choice in self.plan.methods:
                    doses = self.plan.doses_of(choice)
                    middle = doses[len(doses) // 2]
                    row = self._by["ungated", choice.label, target, middle].get(unit)
                    if row is not None and choice.name != "none":
                        rows[choice.label] = row
                first = rows["none"]
                found.append(
                    Sample(
                        prompt_id=first.prompt_id,
                        prompt=first.prompt,
                        target=target,
                        answers={label: row.answer for label, row in rows.items()},
                        scores={label: row.scores for label, row in rows.items()},
                    )
                )
        return found


def marked(samples: Sequence[Sample], battery: Battery) -> list[Sample]:
    """Samples with the pieces that moved the judge, where it can say."""
    if not isinstance(battery, Explains):
        return list(samples)
    places = [(k, label) for k, sample in enumerate(samples) for label in sample.answers]
    found = battery.marks(
        [samples[k].prompt for k, _ in places], [samples[k].answers[label] for k, label in places]
    )
    marks: list[dict[str, list[Mark]]] = [{} for _ in samples]
    for (k, label), own in zip(places, found, strict=True):
        marks[k][label] = own
    return [
        Sample(**{**dict(sample), "marks": own}) for sample, own in zip(samples, marks, strict=True)
    ]


class Finished(Protocol):
    """What numbers are computed from: a bench after `run`, or one model of a study."""

    @property
    def plan(self) -> Plan: ...

    @property
    def battery(self) -> Battery: ...

    @property
    def folder(self) -> Kept: ...

    @property
    def model(self) -> ModelInfo: ...

    @property
    def detectors(self) -> DetectorInfo: ...

    def spent(self, label: str, dose: float | None) -> dict[str, Any]: ...


class Kept(Protocol):
    """Where rows and controls lie."""

    @property
    def path(self) -> Path: ...

    def rows(self) -> list[Row]: ...

    def control_file(self, method: str, target: str, dose: float | None, seed: int) -> Path: ...


def collect(bench: Finished, *, command: str, title: str = "", explain: bool = True) -> Results:
    """The results of a finished run.

    Args:
        bench: a `Bench` after `run`, or what stands for one model of a study.
        command: what the user typed, to stand in the file.
        explain: mark in the samples what the judge went by, see `marked`; a detector then reads
            up to about a thousand more texts.
    """
    plan, battery, folder = bench.plan, bench.battery, bench.folder
    collector = Collector(plan, battery, folder.rows())
    natural = battery.natural(plan.seeds[0])
    slopes = (
        None if natural is None else see_slopes(natural, np.array([t.array for t in plan.targets]))
    )
    blocks = []
    for choice in plan.methods:
        for dose in plan.doses_of(choice):
            blocks.append(_completed(collector.block(choice, dose, slopes), choice, bench))
    return Results(
        run_id=folder.path.name,
        title=title,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        versions=versions(),
        settings={
            "temperature": plan.temperature,
            "max_new_tokens": plan.max_new_tokens,
            "prompts_per_seed": plan.prompts,
            "neutral_per_seed": plan.neutral,
            "dose_prompts": plan.dose_prompts,
            "presence_threshold": battery.threshold,
        },
        model=bench.model,
        system=SystemInfo.of(battery.system),
        detectors=bench.detectors,
        seeds=list(plan.seeds),
        corpus=CorpusInfo(
            name=battery.corpus(plan.seeds[0]).name,
            fingerprint=battery.corpus(plan.seeds[0]).fingerprint,
        ),
        prompts=battery.name,
        blocks=blocks,
        curves=_curves(blocks),
        samples=marked(collector.samples(), battery) if explain else collector.samples(),
    )


def _completed(block: Block, choice: MethodChoice, bench: Finished) -> Block:
    """Dose, kind and receipt from the controls on disk, cost from the clock."""
    plan, folder = bench.plan, bench.folder
    for result, target in zip(block.targets, plan.targets, strict=True):
        notes, sites = [], []
        for seed in plan.seeds:
            path = folder.control_file(choice.label, str(target), block.dose, seed)
            try:
                control = load(path)
            except ControlFileError:
                continue
            block.kind = control.kind
            if "dose" in control.provenance:
                notes.append(control.provenance["dose"])
            sites = sorted({str(edit.site) for edit in getattr(control, "edits", ())})
        if notes:
            result.dose = Dose(
                asked=block.dose,
                p95=_over_seeds([n["p95"] for n in notes]),
                mean=_over_seeds([n["mean"] for n in notes]),
                strength=float(np.mean([n["strength"] for n in notes]))
                if all("strength" in n for n in notes)
                else None,
            )
        if result.receipt is not None:
            result.receipt.sites = sites
    spent = bench.spent(choice.label, block.dose)
    if spent["seconds"]:
        block.cost = Cost(
            seconds=spent["seconds"],
            tokens=int(spent["tokens"]),
            fit_seconds=spent["fit_seconds"],
            peak_memory_mib=spent.get("peak_memory_mib"),
        )
        if rounds := spent.get("rounds"):
            plain, steered = np.array(rounds).T
            draws = Resampling.of(len(rounds), seed=0)
            block.cost.relative_time = _m(relative_time(steered, plain, draws))
    return block


def _over_seeds(values: list[float]) -> Measured:
    """Mean over seeds; the interval is the range, since seeds are few."""
    return Measured(value=float(np.mean(values)), low=min(values), high=max(values), n=len(values))


def _curves(blocks: Sequence[Block]) -> list[DoseCurve]:
    by: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        if block.dose is not None:
            by[block.method].append(block)
    curves = []
    for method, found in by.items():
        if len(found) < 2:
            continue
        points = []
        for block in sorted(found, key=lambda b: b.dose or 0):
            doses = [t.dose.p95.value for t in block.targets if t.dose is not None]
            points.append(
                DosePoint(asked=block.dose or 0.0, p95=_over_seeds(doses), metrics=block.summary)
            )
        curves.append(DoseCurve(method=method, points=points))
    return curves


def versions() -> dict[str, str]:
    """Versions of everything that shapes a number."""
    found = {"valign": valign.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "numpy"):
        found[package] = metadata.version(package)
    return found


def _m(estimate: Estimate) -> Measured:
    return Measured.model_validate(estimate)
