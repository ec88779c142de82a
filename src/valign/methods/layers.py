"""Which layers of the residual stream a method edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from valign.control import Site
from valign.lm import HostModel
from valign.methods.errors import MethodSettingError
from valign.methods.readings import Readings


def _one_layer(layers: Any) -> Any:
    one = isinstance(layers, int) or (isinstance(layers, str) and layers.isdigit())
    return (layers,) if one else layers


Layers = Annotated[
    Literal["inner", "middle", "best"] | tuple[int, ...], BeforeValidator(_one_layer)
]
"""A rule, or layer numbers."""


def chosen_sites(
    lm: HostModel, layers: Layers, found: Sequence[Readings], *, method: str
) -> list[Site]:
    """The residual sites a setting stands for.

    Args:
        layers: `inner`, all but the first and the last; `middle`, the one before half of the
            layers; `best`, the one whose probes tell held-out pairs apart best; or numbers.
        found: readings of the target's values on the residual stream; only `best` looks at them.
        method: name for the error.

    Raises:
        MethodSettingError: a layer the model does not have.
    """
    sites = list(lm.sites("resid"))
    if layers == "inner":
        return sites[1:-1] if len(sites) > 2 else sites
    if layers == "middle":
        return [sites[(len(sites) - 1) // 2]]
    if layers == "best":
        return [max(sites, key=lambda s: sum(r[s].probe.accuracy for r in found))]
    wrong = [layer for layer in layers if not 0 <= layer < len(sites)]
    if wrong:
        raise MethodSettingError(
            f"{method}: layers={wrong[0]}: the model has layers 0 to {len(sites) - 1}."
        )
    return [sites[layer] for layer in layers]
