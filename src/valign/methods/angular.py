"""Angular steering: turn activations in a plane, and keep their length."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field

from valign.control import Edit, EditsControl, Site
from valign.corpora.types import Corpus
from valign.lm import HostModel
from valign.methods.base import Method
from valign.methods.errors import FitError
from valign.methods.layers import Layers, chosen_sites
from valign.methods.readings import Positions, need_pairs, read
from valign.values import Profile


class Angular(Method):
    """Angular steering (Vu & Nguyen, arXiv 2510.26243): a rotation within a plane.

        d      the value's direction, b1 = d / |d|
        b2     a second direction, orthogonal to b1
        (x, y) = (b1 . a, b2 . a), the part of a in the plane
        a <- a - (x b1 + y b2) + |(x, y)| (cos theta b1 + sin theta b2)

    theta = 0 lies along the value, 180 against it. The length of the activation stays, and so
    does all of it outside the plane: adding and ablating a direction change both. Strength is the
    farthest turn in radians (ours), so the paper's rotation is reached where it is large enough
    for every token.

    Helps where a norm is not to move: long texts, many layers at once. Hurts in a fixed plane that
    holds little of the activation: nothing more than that part can be turned, and a dose may be out
    of reach.

    The paper's plane (`pca`) is one for the model, from the mean difference of one layer and the
    first principal component of all layers' mean differences; it acts after the norms of every
    block. Ours: the mean difference most like the other layers'; acting after whole blocks;
    weighted sums of values; and the plane `own`, through d and the token's own activation, in
    which all of it turns: the shortest way over the sphere. The paper's adaptive variant, which
    turns only tokens on the value's side, is left out.
    """

    name: ClassVar[str] = "angular"

    layers: Layers = "inner"
    """See `caa`; the paper turns at every block."""
    plane: Literal["own", "pca"] = "own"
    """`own`: each layer's direction and the token's own activation (ours, untuned); `pca`: the
    paper's, one for all layers."""
    angle: float = Field(default=0.0, ge=-360, le=360)
    """Degrees to turn to, from the value's direction; 0 is the target itself."""
    positions: Positions = "mean"
    """Read the mean over the answer's tokens, or only the last one."""

    def _fit(self, lm: HostModel, corpus: Corpus, target: Profile) -> EditsControl:
        need_pairs(corpus, target)
        found = {v: read(lm, corpus, "resid", v, positions=self.positions) for v in target.named}
        sites = chosen_sites(lm, self.layers, list(found.values()), method=self.name)
        toward = {
            site: torch.stack([s * found[v][site].gap for v, s in target.named.items()]).sum(0)
            for site in lm.sites("resid")
        }
        if self.plane == "pca":
            planes = dict.fromkeys(sites, _principal_plane(torch.stack(list(toward.values()))))
        else:
            planes = {site: _direction(toward[site], site) for site in sites}
        angle = torch.tensor(math.radians(self.angle))
        edits = tuple(
            Edit(site=site, kind="rotate", tensors=dict(plane=planes[site], angle=angle))
            for site in sites
        )
        return EditsControl(
            target=target, edits=edits, provenance=dict(sites=[str(site) for site in sites])
        )


def _direction(toward: torch.Tensor, site: Site) -> torch.Tensor:
    """One row of norm 1, (1, width)."""
    if not toward.norm() > 1e-9:
        raise FitError(
            f"angular: at {site} the two sides of the value's pairs lie in one place, so there is "
            "no direction to turn to. Choose other layers."
        )
    return (toward / toward.norm())[None]


def _principal_plane(toward: torch.Tensor) -> torch.Tensor:
    """The paper's plane from the directions of all layers, (n_layers, width) -> (2, width).

    Directions count by their length as well as their turn, as principal components do; the data
    are not centred, since a component of differences is wanted.
    """
    unit = torch.nn.functional.normalize(toward, dim=1)
    first = toward[(unit @ unit.T).sum(1).argmax()]
    for component in torch.linalg.svd(toward, full_matrices=False).Vh:
        rest = component - component @ first / first.square().sum() * first
        if rest.norm() > 1e-3:
            return torch.stack([first / first.norm(), rest / rest.norm()])
    raise FitError(
        "angular: the directions of all layers are one and the same, so they span no plane. "
        "Use plane=own."
    )
