"""Everyday words for the values, from `data/lexicon.yaml`, or from a system's own keywords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from valign.values import ValueSystem

DATA = Path(str(resources.files("valign.translate") / "data"))


@dataclass(frozen=True)
class Term:
    """A word or phrase that speaks of a value.

    Attributes:
        value: the value it speaks of.
        sign: -1 for a quality that opposes the value (`heartless` and benevolence).
        quality: whether it is a quality (`kind`) rather than a thing (`kindness`).
    """

    value: str
    sign: int
    quality: bool


@cache
def lexicon() -> Mapping[str, Mapping[str, list[str]]]:
    """Value -> nouns, more, less, people, creed; for the ten values."""
    return yaml.safe_load((DATA / "lexicon.yaml").read_text("utf-8"))


@cache
def frames() -> Mapping[str, Any]:
    """Sentence frames for composing training texts."""
    return yaml.safe_load((DATA / "frames.yaml").read_text("utf-8"))


@cache
def terms(system: ValueSystem) -> Mapping[str, Term]:
    """Lower-case phrase -> what it speaks of.

    The ten values bring their everyday words; every system brings names, titles and keywords.
    """
    found: dict[str, Term] = {}
    for value in system:
        own = lexicon().get(value.name, {}) if system.name == "schwartz10" else {}
        for key, sign, quality in (("less", -1, True), ("more", 1, True), ("nouns", 1, False)):
            for phrase in own.get(key, ()):
                found[phrase.lower()] = Term(value.name, sign, quality)
        for phrase in value.keywords:
            found.setdefault(phrase.lower(), Term(value.name, 1, False))
    for value in system:  # names last, since one value's name is no other's keyword
        for phrase in (value.name, value.title, re.sub(r"[-:]\s*", " ", value.title)):
            found[phrase.lower()] = Term(value.name, 1, False)
    return found
