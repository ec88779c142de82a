"""The results file: `results.json`, schema `valign-results/1`, and the rows beside it.

A number in a result is either a `Measured` (value with interval, sample size and level), an exact
count, or a setting. Strict JSON has no NaN or infinity: both are written as null, and null is
read back as NaN. Rows, one JSON object per answer, stand in `rows.jsonl` next to it. See
`docs/results.md` for the meaning of every field.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from valign.measure.estimate import Estimate
from valign.values import ValignError, ValueSystem

SCHEMA: Literal["valign-results/1"] = "valign-results/1"

Reading = Literal["ungated", "gated", "on_topic", "neutral"]
Kind = Literal["none", "text", "edits", "bridge", "weights"]
Role = Literal["method", "baseline", "ceiling"]

Number = Annotated[
    float,
    BeforeValidator(lambda x: math.nan if x is None else x),
    PlainSerializer(lambda x: x if math.isfinite(x) else None, when_used="json"),
]
"""A float whose NaN and infinities are null in JSON; null is read as NaN."""


class ResultsError(ValignError, ValueError):
    """A results file that cannot be read, or results that contradict themselves."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Measured(_Model):
    """An `Estimate` as it stands in a file; an `Estimate` may be given wherever one is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: Number
    low: Number
    high: Number
    n: int = Field(ge=0)
    level: float = Field(default=0.95, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _from_estimate(cls, given: Any) -> Any:
        if isinstance(given, Estimate):
            return {name: getattr(given, name) for name in ("value", "low", "high", "n", "level")}
        return given

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.low, self.high, self.n, self.level)

    @property
    def defined(self) -> bool:
        """Whether there is a value at all (a ratio may lack its denominator)."""
        return math.isfinite(self.value)


class ModelInfo(_Model):
    """The host model."""

    name: str
    fingerprint: str
    parameters: int
    dtype: str
    device: str


class SystemInfo(_Model):
    """What a reader needs of the value system; values in circle order."""

    name: str
    title: str
    values: list[str]
    titles: list[str]
    groups: dict[str, list[str]] = {}
    group_titles: dict[str, str] = {}
    angles: list[float] | None = None

    @classmethod
    def of(cls, system: ValueSystem) -> SystemInfo:
        return cls(
            name=system.name,
            title=system.title,
            values=list(system.names),
            titles=[value.title for value in system],
            groups={group: list(members) for group, members in system.groups.items()},
            group_titles=dict(system.group_titles),
            angles=[float(a) for a in system.angles()] if system.has_circle else None,
        )


class DetectorInfo(_Model):
    """Who judged. `tune` chose strengths or settings (None where only the dose did).

    Attributes:
        judge_fingerprint: changes with the judge's weights and settings; None where it has none,
            or where it was not written down.
    """

    judge: str
    judge_fingerprint: str | None = None
    tune: str | None = None

    @model_validator(mode="after")
    def _apart(self) -> DetectorInfo:
        if self.judge == self.tune:
            raise ValueError(
                f"{self.judge} both tuned and judged; a result needs two different detectors "
                "(or tune=None where no detector was used for tuning)"
            )
        return self


class CorpusInfo(_Model):
    """What the methods were fitted on."""

    name: str
    fingerprint: str


class Dose(_Model):
    """How far a control pushed, in nats per answer token.

    Attributes:
        asked: the 95th percentile that was asked for; None where a control has no strength.
        p95, mean: of KL(steered || unsteered) over answer tokens, as measured.
        strength: what calibration found; a setting, not a measurement.
    """

    asked: float | None = None
    p95: Measured
    mean: Measured
    strength: float | None = None


class Metrics(_Model):
    """Gain, leakage and tax; None where it was not measured. `docs/results.md` defines each."""

    gain: Measured
    gain_held_out: Measured | None = None
    gain_bound: Measured | None = None
    gain_choice: Measured | None = None
    leakage: Measured | None = None
    leakage_raw: Measured | None = None
    excess_leakage: Measured | None = None
    nlr: Measured | None = None
    nlr_raw: Measured | None = None
    nglr_in_group: Measured | None = None
    nglr_adjacent: Measured | None = None
    nglr_opposite: Measured | None = None
    in_group_share: Measured | None = None
    headroom_leakage: Measured | None = None
    fluency: Measured | None = None
    perplexity: Measured | None = None
    distinct_2: Measured | None = None
    repetition: Measured | None = None
    facts_kept: Measured | None = None
    facts_wrong: Measured | None = None
    neutral_unchanged: Measured | None = None
    neutral_presence: Measured | None = None
    gate_open: Measured | None = None


class Receipt(_Model):
    """What was really applied. Counts are exact; sizes are means with intervals."""

    sites: list[str] = []
    tokens: int = 0
    tokens_touched: int = 0
    mean_size: Measured | None = None
    requests: int = 0
    gate_opened: int = 0


class Cost(_Model):
    """What it took: seconds and tokens of generation, time per decoding step relative to the
    unsteered model (timed in turns), seconds of fitting, and the largest memory so far: of the
    GPU's allocator, or of the whole process on a CPU."""

    seconds: float
    tokens: int
    relative_time: Measured | None = None
    fit_seconds: float | None = None
    peak_memory_mib: float | None = None


class TargetResult(_Model):
    """One target of a block; `target` is a profile as typed, `benevolence=+1`."""

    target: str
    dose: Dose | None = None
    no_control: bool = False
    metrics: Metrics
    receipt: Receipt | None = None


class Block(_Model):
    """One method at one dose under one reading.

    Attributes:
        role: `baseline` for the rows every table must hold (none, random direction), `ceiling`
            for those that are no competitors (an instruction the model was trained on).
        targets: one per target; rows of `c` and `shift` follow this order.
        summary: means over targets.
        c0: C0[j] per value. c: C[i][j]. shift: C - C0, signed. group_leakage: mean leakage from
            target group to value group, in the order of `SystemInfo.groups`.
    """

    method: str
    kind: Kind
    role: Role = "method"
    reading: Reading = "ungated"
    dose: float | None = None
    settings: dict[str, JsonValue] = {}
    targets: list[TargetResult]
    summary: Metrics
    c0: list[Measured]
    c: list[list[Measured]]
    shift: list[list[Measured]]
    group_leakage: list[list[Measured]] | None = None
    cost: Cost | None = None

    @property
    def label(self) -> str:
        """Method and dose in one short name."""
        return self.method if self.dose is None else f"{self.method} @ {self.dose:g}"


class DosePoint(_Model):
    """One point of a dose curve; measured as everything else."""

    asked: float
    p95: Measured
    strength: float | None = None
    metrics: Metrics


class DoseCurve(_Model):
    """One method over several doses; `target` None means the mean over targets."""

    method: str
    target: str | None = None
    points: list[DosePoint]


class Mark(_Model):
    """A piece of an answer that made the judge say so.

    Attributes:
        start, end: where it stands, in characters (Unicode code points) of the answer.
        value: the value whose score it moved.
        weight: by how much, in units of the score; below 0 where it lowers the score.
    """

    start: int = Field(ge=0)
    end: int
    value: str
    weight: float = Field(allow_inf_nan=False)


class Sample(_Model):
    """Answers to one prompt side by side.

    Attributes:
        answers: block label -> answer; `none` is the unsteered model.
        scores: block label -> value -> score by the judge.
        marks: block label -> pieces of the answer that moved the judge, left to right, none over
            another; empty where the judge cannot say.
    """

    prompt_id: str
    prompt: str
    target: str
    answers: dict[str, str]
    scores: dict[str, dict[str, Number]] = {}
    marks: dict[str, list[Mark]] = {}

    @model_validator(mode="after")
    def _marks_fit(self) -> Sample:
        for label, marks in self.marks.items():
            at = 0
            for mark in marks:
                if not at <= mark.start < mark.end <= len(self.answers.get(label, "")):
                    raise ValueError(
                        f"sample {self.prompt_id}: the mark {mark.start}-{mark.end} does not fit "
                        f"the answer of {label}, or overlaps with the one before"
                    )
                at = mark.end
        return self


class Results(_Model):
    """One run or study, complete: enough to print every table and page from it alone."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    schema_id: Literal["valign-results/1"] = Field(default=SCHEMA, alias="schema")
    run_id: str
    title: str = ""
    created: str | None = None
    command: str
    versions: dict[str, str]
    settings: dict[str, JsonValue] = {}
    model: ModelInfo
    system: SystemInfo
    detectors: DetectorInfo
    seeds: list[int]
    corpus: CorpusInfo
    prompts: str = ""
    scale: Literal["presence", "intensity"] = "presence"
    """What `c` and `shift` count: share of answers that show a value, or mean score in [-1, 1]."""
    blocks: list[Block] = []
    curves: list[DoseCurve] = []
    samples: list[Sample] = []
    notes: list[str] = []

    @model_validator(mode="after")
    def _shapes(self) -> Results:
        width = len(self.system.values)
        for block in self.blocks:
            rows = len(block.targets)
            square = [("c", block.c), ("shift", block.shift)]
            bad = [name for name, m in square if [len(r) for r in m] != [width] * rows]
            if len(block.c0) != width or bad:
                raise ValueError(
                    f"block {block.label}: c0 must hold {width} values, c and shift {rows} rows "
                    f"of {width}"
                )
        return self

    def to_json(self) -> str:
        """Strict JSON; NaN and infinities are null, a judge without fingerprint has no field."""
        unknown = self.detectors.judge_fingerprint is None
        absent = {"detectors": {"judge_fingerprint"}} if unknown else None
        return self.model_dump_json(by_alias=True, indent=1, exclude=absent) + "\n"

    def write(self, path: str | Path) -> Path:
        """Write `results.json`; whoever reads meanwhile sees the old file or the new one whole."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(self.to_json(), "utf-8")
        os.replace(partial, path)
        return path

    @classmethod
    def read(cls, path: str | Path) -> Results:
        """Read what `write` wrote; `path` is the file, or the folder that holds `results.json`.

        Raises:
            ResultsError: no such file, not JSON, another schema, or a field that does not fit.
        """
        path = Path(path)
        path = path / "results.json" if path.is_dir() else path
        try:
            given = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ResultsError(f"No results at {path}; `valign run` writes them.") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ResultsError(f"{path} is not JSON: {error}") from None
        schema = given.get("schema") if isinstance(given, dict) else None
        if schema != SCHEMA:
            raise ResultsError(f"{path} has schema {schema!r}; this version reads {SCHEMA!r}.")
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise ResultsError(
                f"{path}: {where}: {first['msg']} ({error.error_count()} such faults)"
            ) from None


class Row(_Model):
    """One answer, a line of `rows.jsonl`.

    Attributes:
        run: run id. method, target, dose, seed, prompt_id, reading: which answer this is;
            together unique. target is `` for the unsteered model, dose None without one.
        scores: value -> judge's score in [-1, 1].
        aspects: the same, restricted to one aspect of expression (`held_out` phrasings,
            `bound` sentences, the `choice` between options), where the judge knows any.
        fluent: None where not judged. facts_kept, facts_wrong, facts: counts, None where the
            prompt states no facts.
        nll: sum of -log p of the answer's tokens under the unsteered model; tokens: their number.
        gate_open: None where there is no gate.
        touched: positions at which edits were applied. size: their mean relative size, as in
            `valign.lm.Receipt`.
    """

    run: str
    method: str
    target: str = ""
    dose: float | None = None
    seed: int = 0
    prompt_id: str
    reading: Reading = "ungated"
    prompt: str
    answer: str
    scores: dict[str, Number] = {}
    aspects: dict[str, dict[str, Number]] = {}
    fluent: bool | None = None
    facts: int | None = None
    facts_kept: int | None = None
    facts_wrong: int | None = None
    nll: Number | None = None
    tokens: int = 0
    gate_open: bool | None = None
    touched: int = 0
    size: float = 0.0

    @property
    def key(self) -> tuple[str, str, float | None, int, str, str]:
        """What makes the row unique; a resumed run skips the keys it already has."""
        return self.method, self.target, self.dose, self.seed, self.prompt_id, self.reading

    def line(self) -> str:
        """The row as one line, without the line end."""
        return self.model_dump_json()


def read_rows(path: str | Path) -> Iterator[Row]:
    """Rows of a `rows.jsonl`, in order.

    A last line without line end is what a killed run was writing: it is left out.

    Raises:
        ResultsError: another line that is no row; the message names it.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                return
            try:
                yield Row.model_validate_json(line)
            except ValidationError as error:
                what = error.errors()[0]["msg"]
                raise ResultsError(f"{path}, line {number} is not a row: {what}") from None
