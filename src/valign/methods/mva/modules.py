"""Which linear layers get an adapter: names are checked before any work, and match as PEFT's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from valign.lm import HostModel
from valign.lm.layout import linear_shape
from valign.methods.errors import MethodSettingError

ALL: Literal["all-linear"] = "all-linear"
"""Stands for every linear layer but the one over the vocabulary."""


def check_modules(lm: HostModel, modules: Sequence[str] | Literal["all-linear"]) -> None:
    """Refuse names that would fail late, or be passed over in silence.

    A name means every module whose whole name it is, or ends in a dot and it.

    Raises:
        MethodSettingError: no name, or one that means no module, or one that an adapter cannot be
            trained on.
    """
    if modules == ALL:
        return
    fit = _fit(lm)
    wrong = [] if modules else ["no module"]
    for wanted in modules:
        meant = [name for name in fit if name == wanted or name.endswith(f".{wanted}")]
        if not meant:
            wrong.append(f"{wanted!r}, which {lm.name} does not have")
        elif not all(fit[name] for name in meant):
            kind = type(lm.model.get_submodule(next(n for n in meant if not fit[n]))).__name__
            wrong.append(f"{wanted!r} ({kind}), on which no adapter can be trained")
    if wrong:
        there = sorted({name.rpartition(".")[2] for name, fits in fit.items() if fits})
        raise MethodSettingError(
            f"modules names {'; '.join(wrong)}. Linear layers of {lm.name}: {', '.join(there)}. "
            f"Write for example modules={there[0]}, or modules={ALL}."
        )


def _fit(lm: HostModel) -> dict[str, bool]:
    """Every module's name, and whether an adapter can be trained on it.

    Not on the layer over the vocabulary: TRL reads log-probabilities off its weight, past adapters.
    """
    head = lm.model.get_output_embeddings()
    return {
        name: module is not head and linear_shape(module, strict=False) is not None
        for name, module in lm.model.named_modules()
        if name
    }
