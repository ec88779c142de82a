"""Reading questionnaires: the bundled ones, published ones from the user's file, the user's own."""

from __future__ import annotations

import difflib
from collections import Counter
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from valign.values.load import load_system
from valign.values.questionnaires.published import read_items
from valign.values.questionnaires.types import Item, Questionnaire, QuestionnaireError

_HERE = resources.files("valign.values.questionnaires")
BUNDLED = ("portraits10", "portraits19")


class _Option(BaseModel):
    model_config = ConfigDict(extra="forbid")
    says: str = Field(min_length=1)
    points: float


class _Head(BaseModel):
    """What a questionnaire says before its items; shared by own files and published formats."""

    model_config = ConfigDict(extra="forbid")
    title: str
    source: str
    licence: str
    system: str | None = None
    question: str = Field(pattern=r"\{item\}")
    scale: tuple[_Option, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _rises(self) -> _Head:
        points = [option.points for option in self.scale]
        if points != sorted(set(points)):
            raise ValueError(f"the scale's points must rise from option to option, got {points}")
        return self


class _Format(_Head):
    size: int | None = None
    key: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class _Own(_Head):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    items: dict[str, tuple[str, ...]] = Field(min_length=1)
    reversed_items: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def available_questionnaires() -> dict[str, bool]:
    """Name -> whether its items are bundled; the others are read from the user's file."""
    return dict.fromkeys(BUNDLED, True) | dict.fromkeys(_formats(), False)


def load_questionnaire(
    name_or_path: str | Path = "portraits10", *, items: str | Path | None = None
) -> Questionnaire:
    """A questionnaire by name or path.

    Bundled: `portraits10`, `portraits19`. Published ones need the user's copy of the items:
    `pvq40`, `pvq-rr`, `pvq21`, `svs`, `valuebench`, or one of ValueBench's inventories, as in
    `valuebench/PVQ40`. The user's own is a YAML file of the shape of `portraits10.yaml`: `items`
    maps a value to its items, `reversed_items` (optional) to those that speak against it.

    Args:
        items: file of a published questionnaire: .csv, .jsonl, or .txt with an item a line.
            Columns `text` (or `item`, `statement`), `value` (or `schwartz_value`) and `number`;
            the value may be left out where the item key is published (pvq40).

    Raises:
        QuestionnaireError: an unknown name, a missing or misshapen file, or items that do not
            fit the instrument.
    """
    name, _, part = str(name_or_path).partition("/")
    if name in _formats() and (not part or name == "valuebench"):
        head = _formats()[name]
        if items is None:
            raise QuestionnaireError(
                f"{name} is not shipped ({head.licence}) Give your copy of its items: "
                f"--items FILE on the command line, items=FILE in Python. {head.source}"
            )
        return _published(str(name_or_path), head, Path(items), part)
    if items is not None:
        raise QuestionnaireError(
            f"{name_or_path} brings its own items; an items file goes with {', '.join(_formats())}."
        )
    if str(name_or_path) in BUNDLED:
        return _bundled(str(name_or_path))
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        known = available_questionnaires()
        near = difflib.get_close_matches(str(name_or_path), known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise QuestionnaireError(
            f"No questionnaire {str(name_or_path)!r}.{hint} There are {', '.join(known)}; "
            "or give the path of a .yaml file."
        )
    try:
        return _own(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        raise QuestionnaireError(f"No such file: {path}") from None
    except UnicodeDecodeError as error:
        raise QuestionnaireError(f"{path} is not UTF-8 text: {error.reason}.") from None


@cache
def _formats() -> dict[str, _Format]:
    given = yaml.safe_load((_HERE / "formats.yaml").read_text("utf-8"))["formats"]
    return {name: _Format.model_validate(head) for name, head in given.items()}


@cache
def _bundled(name: str) -> Questionnaire:
    return _own((_HERE / f"{name}.yaml").read_text("utf-8"), name)


def _own(text: str, where: str) -> Questionnaire:
    try:
        own = _Own.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise QuestionnaireError(f"{where} is not YAML: {error}") from None
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise QuestionnaireError(f"{where} is not a questionnaire:\n" + "\n".join(lines)) from None
    signed: tuple[tuple[Literal[-1, 1], dict[str, tuple[str, ...]]], ...] = (
        (1, own.items),
        (-1, own.reversed_items),
    )
    found = [
        Item(f"{value}-{number}{'' if sign == 1 else '-reversed'}", item, value, sign)
        for sign, given in signed
        for value, texts in given.items()
        for number, item in enumerate(texts, start=1)
    ]  # fmt: skip
    twice = [text for text, n in Counter(item.text for item in found).items() if n > 1]
    if twice:
        raise QuestionnaireError(f"{where}: the item {twice[0]!r} stands twice.")
    return _assemble(own.name, own, tuple(found), where)


def _published(name: str, head: _Format, path: Path, inventory: str) -> Questionnaire:
    key = {number: value for value, numbers in head.key.items() for number in numbers}
    found = read_items(path, key=key, keep_unscored=head.size is None and head.system is not None,
                       inventory=inventory, own_names=head.system is None)  # fmt: skip
    if head.size is not None and len(found) != head.size:
        raise QuestionnaireError(
            f"{path} holds {len(found)} items; {name} ({head.title}) has {head.size}."
        )
    return _assemble(name, head, found, str(path))


def _assemble(name: str, head: _Head, items: tuple[Item, ...], where: str) -> Questionnaire:
    used = tuple(dict.fromkeys(item.value for item in items if item.value is not None))
    values = used
    if head.system is not None:
        values = load_system(head.system).names
        strange = [value for value in used if value not in values]
        silent = [value for value in values if value not in used]
        if strange or silent:
            wrong = f"names {', '.join(strange)}" if strange else f"no item for {', '.join(silent)}"
            raise QuestionnaireError(
                f"{where}: {wrong}. {name} is scored on the values of {head.system}: "
                f"{', '.join(values)}."
            )
    options: dict[str, Any] = dict(
        options=tuple(option.says for option in head.scale),
        points=tuple(option.points for option in head.scale),
    )
    return Questionnaire(
        name=name, title=head.title, source=head.source, licence=head.licence, values=values,
        question=head.question, items=items, system=head.system, **options,
    )  # fmt: skip
