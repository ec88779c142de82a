"""Whether closed questions, open answers and self-report say the same of a control.

Closed and open tests of one steering vector contradict each other in published cases, and
questionnaires foretell behaviour badly, so no verdict rests on one of them. A verdict is what an
interval shows; the flag is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from valign.measure.errors import MeasureError
from valign.measure.estimate import Estimate

Verdict = Literal["up", "down", "not shown"]
Flag = Literal["agree", "partly", "contradict", "nothing shown"]


@dataclass(frozen=True)
class Agreement:
    """Attributes:
    verdicts: per reading, what its interval shows.
    flag: `agree`: all show the same direction; `partly`: some show it, others nothing;
        `contradict`: two show opposite directions; `nothing shown`.
    """

    verdicts: dict[str, Verdict]
    flag: Flag


def verdict(change: Estimate) -> Verdict:
    """`up` or `down` where the interval leaves zero out; NaN shows nothing."""
    if change.low > 0:
        return "up"
    return "down" if change.high < 0 else "not shown"


def agreement(**readings: Estimate | None) -> Agreement:
    """Compare readings of one change, None for one that was not made.

        agreement(closed=a, open=b, self_report=None)

    Raises:
        MeasureError: fewer than two readings.
    """
    verdicts = {name: verdict(change) for name, change in readings.items() if change is not None}
    if len(verdicts) < 2:
        raise MeasureError(
            f"Agreement needs two readings at least, got {', '.join(verdicts) or 'none'}: "
            "ask closed questions as well as open ones."
        )
    shown = set(verdicts.values()) - {"not shown"}
    flag: Flag
    if not shown:
        flag = "nothing shown"
    elif len(shown) == 2:
        flag = "contradict"
    else:
        flag = "partly" if "not shown" in verdicts.values() else "agree"
    return Agreement(verdicts, flag)
