"""Who a questionnaire is put to: people in one line each, so that answers can vary.

One model asked once at temperature 0 has no variance: no correlations between values, no interval.
`people` describes plain circumstances. `anchored` adds, in turn, one value that matters most to
each of them; for instruction-tuned models such anchors brought the structure of answers closest to
that of people (arXiv 2407.12878), so they test what a model *can* report, not what it does unasked.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from valign.values import ValignError, ValueSystem


class RespondentError(ValignError, ValueError):
    """More different people than there are."""


def people(n: int, *, seed: int = 0) -> tuple[str, ...]:
    """n different people, the same for the same seed; a larger n begins with the smaller one's.

    Raises:
        RespondentError: n is not in 1..2304.
    """
    lists = _lists()
    sizes = tuple(len(lists[name]) for name in ("ages", "work", "home"))
    most = int(np.prod(sizes))
    if not 1 <= n <= most:
        raise RespondentError(f"{n} respondents: there are 1 to {most} different ones.")
    order = np.random.default_rng(seed).permutation(most)[:n]
    return tuple(
        lists["line"].format(age=lists["ages"][a], work=lists["work"][w], home=lists["home"][h])
        for a, w, h in zip(*np.unravel_index(order, sizes), strict=True)
    )


def anchored(n: int, system: ValueSystem, *, seed: int = 0) -> tuple[str, ...]:
    """n people, each with one value that matters most; values take turns in the system's order."""
    anchor = _lists()["anchor"]
    values = system.values
    return tuple(
        f"{person} "
        + anchor.format(value=values[k % len(values)].name.replace("-", " "),
                        definition=values[k % len(values)].definition)
        for k, person in enumerate(people(n, seed=seed))
    )  # fmt: skip


@cache
def _lists() -> dict[str, Any]:
    return yaml.safe_load((resources.files("valign.study") / "respondents.yaml").read_text("utf-8"))
