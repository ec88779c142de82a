"""From one value system to a coarser one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TypeVar

import numpy as np
import yaml

from valign.values.errors import ConversionError

Score = TypeVar("Score", float, np.ndarray)


@cache
def _mappings() -> dict[str, dict[str, dict[str, list[str]]]]:
    text = (resources.files("valign.values") / "mappings.yaml").read_text("utf-8")
    return yaml.safe_load(text)


def convert(scores: Mapping[str, Score], source: str, target: str) -> dict[str, Score]:
    """Scores over `target`, each the plain mean of its parts in `source` (`mappings.yaml`).

    The mean is ours, and weighs all parts alike. Parts that the target has no place for (face and
    humility on the way from nineteen values to ten) are dropped. ConVA takes the same mean from the
    ValueEval'23 categories to the ten values.

    Args:
        scores: source value -> number, or array (any one shape, for many texts at once).
        source: `schwartz19`, `schwartz10` or `valueeval23` (categories as spelled in that data).
        target: `schwartz10`, `schwartz19` or `higher-order4`.

    Raises:
        ConversionError: no mapping between the two, or a part that `scores` lacks.
    """
    maps = _mappings()
    if target not in maps.get(source, {}):
        known = ", ".join(f"{s} -> {t}" for s in maps for t in maps[s])
        raise ConversionError(
            f"No mapping {source} -> {target}. There are: {known}. Two steps may do it."
        )
    parts_of = maps[source][target]
    missing = sorted({p for parts in parts_of.values() for p in parts if p not in scores})
    if missing:
        raise ConversionError(
            f"{source} -> {target} needs a score for every part; missing: {', '.join(missing)}."
        )
    return {
        value: sum(scores[part] for part in parts) / len(parts)  # type: ignore[misc]
        for value, parts in parts_of.items()
    }
