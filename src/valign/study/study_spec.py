"""The file of a study: a YAML that names methods, values, doses, seeds and models.

    title: Which method moves benevolence?
    models: [reference]                   # or {name: mine, path: ../models/mine, dtype: bfloat16}
    methods: [caa, {caa: {specific: true}}, neva]
    values: each                          # or names and profiles: [benevolence, power=-1]
    doses: [0.25, 0.5]                    # or `fitted`: as strong as the fit made it
    seeds: [0, 1, 2]
    prompts: 60

Everything is checked before any model is loaded, and every fault is told at once, each with the
row it stands in and the nearest name that exists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from valign.study.cells import Cell
from valign.study.plan import BASELINES, FITTED, MethodChoice, Plan, PlanError
from valign.values import Profile, ValignError, ValueSystem, load_system


class StudyFileError(ValignError, ValueError):
    """A study's file with faults; the message lists all of them."""


def _listed(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(_Part):
    """A model of a study.

    Attributes:
        name: in tables; the last part of the path where it is not given.
        path: folder or Hub name; `reference` is the shipped one.
        dtype: auto, float32, bfloat16 or float16.
        trust_remote_code: run code that comes with the checkpoint.
    """

    name: str = Field(min_length=1)
    path: str = Field(min_length=1)
    dtype: str = "auto"
    trust_remote_code: bool = False


def _dose(given: Any) -> Any:
    """`fitted` is None, as in a plan."""
    return None if given == FITTED else given


Doses = Annotated[list[Annotated[float | None, BeforeValidator(_dose)]], BeforeValidator(_listed)]


class MethodEntry(_Part):
    """A method of a study with its settings, and doses where they are not the study's."""

    name: str
    settings: dict[str, JsonValue] = {}
    doses: Doses | None = None

    @property
    def choice(self) -> MethodChoice:
        own = None if self.doses is None else tuple(self.doses)
        return MethodChoice(self.name, dict(self.settings), own)


def _model(given: Any) -> Any:
    """`path`, or a mapping with at least a path or a name."""
    if isinstance(given, str):
        given = {"path": given}
    if isinstance(given, dict):
        path = given.get("path", given.get("name"))
        if isinstance(path, str):
            return {"name": Path(path).name or path, **given, "path": path}
    return given


def _method(given: Any) -> Any:
    """`caa`, `{caa: {specific: true}}` or `{name: svgt, doses: [fitted]}`."""
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, dict) and len(given) == 1:
        name, settings = next(iter(given.items()))
        if isinstance(name, str) and name != "name":
            return {"name": name, "settings": settings or {}}
    return given


class StudySpec(_Part):
    """A study as its file says it.

    Attributes:
        models, methods, values, doses, seeds: the grid. `values` holds names or profiles of the
            corpus's value system; `each` stands for one target per value.
        corpus: what to fit on and ask: `world`, `valuetexts` or a folder; default: the world for
            `reference`, else `valuetexts`.
        detector: who judges real text.
        prompts, neutral, dose_prompts, max_new_tokens, temperature, batch_size: as in `Plan`.
    """

    title: str = ""
    models: Annotated[list[Annotated[ModelEntry, BeforeValidator(_model)]],
                      BeforeValidator(_listed), Field(min_length=1)]  # fmt: skip
    methods: Annotated[list[Annotated[MethodEntry, BeforeValidator(_method)]],
                       BeforeValidator(_listed), Field(min_length=1)]  # fmt: skip
    values: Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
    doses: Doses = [0.5]
    seeds: Annotated[list[int], BeforeValidator(_listed)] = [0]
    corpus: str | None = None
    detector: str | None = None
    prompts: int = 60
    neutral: int = 20
    dose_prompts: int = 24
    max_new_tokens: int = 64
    temperature: float = 0.0
    batch_size: int = 32

    @classmethod
    def read(cls, path: str | Path) -> StudySpec:
        """Read and check a study's file.

        Raises:
            StudyFileError: no such file, no YAML, or faults; the message lists them by row.
        """
        path = Path(path)
        try:
            given = yaml.safe_load(path.read_text("utf-8"))
        except OSError as error:
            raise StudyFileError(f"Cannot read {path}: {error.strerror or error}.") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise StudyFileError(f"{path} is no YAML: {error}") from None
        return cls.check(given, str(path))

    @classmethod
    def check(cls, given: Any, source: str = "the study") -> StudySpec:
        """A study from what its YAML holds.

        Raises:
            StudyFileError: faults; the message lists all of them.
        """
        if not isinstance(given, dict):
            raise StudyFileError(
                f"{source} holds {type(given).__name__}, not keys and values. Begin with "
                "`models: [reference]`, `methods: [caa]` and `values: each`."
            )
        try:
            spec = cls.model_validate(given)
        except ValidationError as error:
            faults = [_fault(found, given) for found in error.errors()]
            raise StudyFileError(_told(source, faults)) from None
        faults = list(spec._faults())
        if faults:
            raise StudyFileError(_told(source, faults))
        return spec

    def _faults(self) -> Iterator[str]:
        """What only the rooms that know the names can tell."""
        from valign.corpora.errors import CorpusError
        from valign.methods import get_method

        for row, method in enumerate(self.methods, 1):
            try:
                get_method(method.name, **method.settings)
            except ValignError as error:
                yield f"methods, row {row}: {error}"
                continue
            try:
                replace(_blank(load_system("schwartz10")), methods=(method.choice,))
            except PlanError as error:
                yield f"methods, row {row}: {error}"
        names = [model.name for model in self.models]
        for name in sorted({name for name in names if names.count(name) > 1}):
            rows = [row for row, other in enumerate(names, 1) if other == name]
            yield (
                f"models, rows {_listing(rows)} are all called {name!r}; give each a `name` of "
                "its own."
            )
        try:
            system = self.system
        except (CorpusError, ValignError) as error:
            yield f"corpus: {error}"
            return
        for row, value in enumerate(self.values, 1):
            if value == "each":
                if len(self.values) > 1:
                    yield f"values, row {row}: `each` stands alone: it is every value in turn."
                continue
            try:
                if not Profile.parse(value, system).named:
                    yield f"values, row {row}: {value!r} names no value."
            except ValignError as error:
                yield f"values, row {row}: {error}"
        try:
            replace(_blank(system), **self._asking(), doses=self._doses, seeds=tuple(self.seeds))
        except PlanError as error:
            yield str(error)

    @cached_property
    def system(self) -> ValueSystem:
        """The value system of the corpus."""
        if self.corpus_name == "world":
            return load_system("schwartz10")
        from valign.corpora import load_corpus

        return load_corpus(self.corpus_name).system

    @property
    def corpus_name(self) -> str:
        """The corpus that is used: named, or the default of the models."""
        if self.corpus is not None:
            return self.corpus
        return "world" if all(m.path == "reference" for m in self.models) else "valuetexts"

    @property
    def targets(self) -> tuple[Profile, ...]:
        """Wanted profiles."""
        names = self.system.names if self.values == ["each"] else self.values
        return tuple(Profile.parse(text, self.system) for text in names)

    @property
    def plan(self) -> Plan:
        """What is done on each model; the baselines first."""
        plain = [m.name for m in self.methods if not m.settings]
        named = [MethodEntry(name=name) for name in BASELINES if name not in plain]
        named += self.methods
        return Plan(
            methods=tuple(method.choice for method in named),
            targets=self.targets,
            doses=self._doses,
            seeds=tuple(self.seeds),
            **self._asking(),
        )

    @property
    def _doses(self) -> tuple[float | None, ...]:
        return tuple(self.doses)

    def _asking(self) -> dict[str, Any]:
        names = ("prompts", "neutral", "dose_prompts", "max_new_tokens", "temperature",
                 "batch_size")  # fmt: skip
        return {name: getattr(self, name) for name in names}

    def settings(self) -> dict[str, Any]:
        """What a folder holds to: all but the grid, the title and `batch_size`, which changes no
        text."""
        grid = {"title", "models", "methods", "values", "doses", "seeds", "batch_size"}
        return self.model_dump(mode="json", exclude=grid) | {"corpus": self.corpus_name}

    @classmethod
    def of_folder(cls, told: dict[str, Any]) -> StudySpec:
        """The study that a `study.json` tells of."""
        return cls.check({**told["settings"], **told.get("grid", {})}, "study.json")

    def grid(self) -> dict[str, Any]:
        """The rest, as it stands in `study.json`."""
        return self.model_dump(mode="json", exclude=set(self.settings()) - {"corpus"})


def cells_of(plan: Plan, models: Sequence[str]) -> list[Cell]:
    """Every cell of a plan on these models, in the order in which they are best made.

    The unsteered model comes first under each seed; doses of one fit are neighbours.
    """
    found = []
    for model in models:
        for seed in plan.seeds:
            found.append(Cell(model, seed, "none", "", None))
            for method in plan.methods:
                found += [
                    Cell(model, seed, method.label, str(target), dose)
                    for target in plan.targets
                    for dose in plan.doses_of(method)
                ]
    return found


def _blank(system: ValueSystem) -> Plan:
    return Plan(
        methods=(MethodChoice("none"),),
        targets=(Profile.from_mapping(system, {system.names[0]: 1.0}),),
    )


def _fault(error: Any, given: dict[str, Any]) -> str:
    """A fault as pydantic found it, by row, with the nearest known key."""
    where = list(error["loc"])
    place = str(where[0]) if where else "the file"
    if len(where) > 1 and isinstance(where[1], int):
        place += f", row {where[1] + 1}"
    rest = [str(part) for part in where[2:]]
    if error["type"] == "extra_forbidden":
        entries: dict[str, type[_Part]] = {"models": ModelEntry, "methods": MethodEntry}
        part = entries.get(str(where[0]), StudySpec) if len(where) > 1 else StudySpec
        known = list(part.model_fields)
        key = str(where[-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        place = "" if len(where) == 1 else f"{place}: "
        return f"{place}there is no key {key!r}.{hint} There are: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{place}{''.join(f', {part}' for part in rest)} is missing."
    said = error["msg"].removeprefix("Value error, ")
    inside = f", {'.'.join(rest)}" if rest else ""
    return f"{place}{inside}: {said} (got {error['input']!r})."


def _told(source: str, faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return f"{source}: {faults[0]}"
    return f"{source} has {len(faults)} faults:\n" + "\n".join(f"- {fault}" for fault in faults)


def _listing(rows: Sequence[int]) -> str:
    return " and ".join(map(str, rows))
