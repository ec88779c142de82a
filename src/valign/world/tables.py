"""Loads the world's data files: its words, wordings and closed sets of facts."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def table(name: str) -> dict[str, Any]:
    """Return the parsed data file ``data/<name>.yaml`` (shared: treat it as read-only)."""
    text = resources.files(__package__).joinpath("data", f"{name}.yaml").read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def facts() -> dict[str, list[str]]:
    """Closed sets of facts, by kind: name, place, day, time, amount."""
    raw = table("scenarios")["facts"]
    return {kind: raw[kind + "s"] for kind in FACT_KINDS}


FACT_KINDS = ("name", "place", "day", "time", "amount")
