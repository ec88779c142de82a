"""Reading value systems from YAML, the bundled ones and the user's own."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valign.values.errors import SystemFileError
from valign.values.system import Value, ValueSystem

_BUNDLED = resources.files("valign.values") / "systems"


class _ValueRow(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    definition: str = Field(min_length=1)
    group: str | None = None
    also_in: tuple[str, ...] = ()
    angle: float | None = Field(default=None, ge=0, lt=360)
    keywords: tuple[str, ...] = ()
    worth: Literal[-1, 1] = 1


class _SystemFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str
    source: str
    groups: dict[str, str] = Field(default_factory=dict)
    opposites: tuple[tuple[str, str], ...] = ()
    values: tuple[_ValueRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_fit(self) -> _SystemFile:
        names = [value.name for value in self.values]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        used = {g for value in self.values for g in (value.group, *value.also_in) if g}
        for group in used | {g for pair in self.opposites for g in pair}:
            if group not in self.groups:
                near = difflib.get_close_matches(group, self.groups, n=1) or list(self.groups)
                raise ValueError(f"unknown group {group!r}; nearest: {', '.join(near) or 'none'}")
        loops = [a for a, b in self.opposites if a == b]
        if loops:
            raise ValueError(f"opposite of itself: {', '.join(loops)}")
        placed = [value.angle is not None for value in self.values]
        if any(placed) and not all(placed):
            raise ValueError("some values have an angle and some have none; give all or none")
        return self


def available_systems() -> tuple[str, ...]:
    """Names of the bundled systems."""
    return tuple(sorted(p.name.removesuffix(".yaml") for p in _BUNDLED.iterdir()
                        if p.name.endswith(".yaml")))  # fmt: skip


def load_system(name_or_path: str | Path = "schwartz10") -> ValueSystem:
    """A bundled system by name, or the user's own from a YAML file.

    The file holds `name`, `title`, `source`, `groups` (name -> title), `opposites` (pairs of
    group names) and `values`, each with `name`, `title`, `definition` and optionally `group`,
    `also_in`, `angle` (degrees, all or none), `keywords` and `worth` (-1 for a harm).
    `systems/schwartz10.yaml` is an example.

    Raises:
        SystemFileError: no such system, or a file whose shape is wrong (the message says where).
    """
    text_name = str(name_or_path)
    if text_name in available_systems():
        return _bundled(text_name)
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        near = difflib.get_close_matches(text_name, available_systems(), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SystemFileError(
            f"No value system {text_name!r}.{hint} Bundled: {', '.join(available_systems())}; "
            "or give the path of a .yaml file."
        )
    if not path.is_file():
        raise SystemFileError(f"No such file: {path}")
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SystemFileError(f"{path} is not UTF-8 text: {error}") from None
    return _parse(text, text_name)


@cache
def _bundled(name: str) -> ValueSystem:
    return _parse((_BUNDLED / f"{name}.yaml").read_text("utf-8"), name)


def _parse(text: str, text_name: str) -> ValueSystem:
    try:
        parsed = _SystemFile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise SystemFileError(f"{text_name} is not YAML: {error}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise SystemFileError(f"{text_name} is not a value system:\n" + "\n".join(lines)) from None
    return ValueSystem(
        name=parsed.name,
        title=parsed.title,
        source=parsed.source,
        values=tuple(
            Value(v.name, v.title, v.definition, v.group, v.angle, v.keywords, v.worth)
            for v in parsed.values
        ),
        group_titles=tuple(parsed.groups.items()),
        opposite_groups=parsed.opposites,
        also_in=tuple((v.name, v.also_in) for v in parsed.values if v.also_in),
    )
