"""Which kinds of control this engine runs inside the forward pass, and how: one line a kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from valign.control.bridge import BridgeControl
from valign.control.control import Control, Kind
from valign.lm.bridge import BridgeSession, check_bridge
from valign.lm.errors import UnsupportedSiteError
from valign.lm.host import HostModel
from valign.lm.steer import Controls, Session, check_edits
from valign.lm.weights import WeightsSession, check_weights, weights_key


@dataclass(frozen=True)
class _Engine:
    """How a kind is run.

    Attributes:
        check: refuses a control the model cannot run.
        session: the context manager in which the model runs under controls of this kind.
        key: rows whose keys differ go into batches of their own.
    """

    check: Callable[[HostModel, Any], None]
    session: Callable[..., Any]
    key: Callable[[Any], Hashable]


def _bridge_key(control: BridgeControl) -> Hashable:
    return (control.kind, control.layer, control.tokens, control.mode, control.refresh)


_ENGINES: dict[Kind, _Engine] = {
    "edits": _Engine(check_edits, Session, lambda control: ()),
    "bridge": _Engine(check_bridge, BridgeSession, _bridge_key),
    "weights": _Engine(check_weights, WeightsSession, weights_key),
}


def _engine(control: Control) -> _Engine:
    if control.kind not in _ENGINES:
        raise UnsupportedSiteError(f"The Hugging Face engine cannot run {control.kind} controls.")
    return _ENGINES[control.kind]


def check(lm: HostModel, control: Control) -> None:
    """Refuse a control this model cannot run, before any token is made.

    Raises:
        UnsupportedSiteError: the message says what does not fit.
    """
    if control.kind != "text":  # an instruction is part of the prompt
        _engine(control).check(lm, control)


def open_session(
    lm: HostModel, control: Controls, *, prompt_lengths: Sequence[int] | None = None
) -> Any:
    """The session for one control or one per row; see `valign.lm.steer.Session`.

    Raises:
        UnsupportedSiteError: rows of different kinds, or a control that does not fit the model.
    """
    shared = control is None or isinstance(control, Control)
    rows = [control] if shared else list(control)  # type: ignore[arg-type]
    kinds = {row.kind: row for row in rows if row is not None}
    if len(kinds) > 1:
        raise UnsupportedSiteError(
            f"Rows of one batch are steered by one kind of control; these are "
            f"{' and '.join(sorted(kinds))}. `valign.lm.generate` puts them into batches of their "
            "own."
        )
    made = next(iter(kinds.values()), None)
    session = Session if made is None or made.kind == "text" else _engine(made).session
    return session(lm, control, prompt_lengths=prompt_lengths)


def batches(
    lengths: Sequence[int], controls: Sequence[Control | None], size: int
) -> Iterator[list[int]]:
    """Numbers of the rows, in batches of rows that can run together, shortest first."""
    keys: dict[Hashable, list[int]] = {}
    for number, control in enumerate(controls):
        plain = control is None or control.kind == "text"
        keys.setdefault(() if plain else _engine(control).key(control), []).append(number)
    for rows in keys.values():
        order = sorted(rows, key=lambda i: lengths[i])
        for begin in range(0, len(order), size):
            yield order[begin : begin + size]
