"""Dose: how far a control pushes the model, in nats, the same unit for every method.

dose = 95th percentile over answer tokens of KL(steered || unsteered), teacher-forced on the
model's own unsteered answers to held-out prompts, with the context gate held open (a dose says
what the control does when it acts). Ours; the papers set strength by a probability or a raw
coefficient, which cannot be compared across methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from scipy.optimize import brentq

from valign.control.control import Control
from valign.control.rewrite import RewriteControl
from valign.lm.errors import DoseError
from valign.lm.generate import generate
from valign.lm.host import HostModel
from valign.lm.render import Prompt
from valign.lm.score import answer_distributions, token_kl


@dataclass(frozen=True)
class Dose:
    """A measured dose: `p95` and `mean` KL in nats over `tokens` answer tokens."""

    p95: float
    mean: float
    tokens: int


_LARGEST_STEP = math.log(16)
_FARTHEST = math.log(2**20)


def _error(found: float, wanted: float) -> float:
    """Relative error; infinite for numbers that are not finite."""
    return abs(found - wanted) / wanted if math.isfinite(found) else math.inf


class DoseMeter:
    """Measures and sets doses on one set of prompts.

    Args:
        lm: the host model.
        prompts: held-out prompts; neither fitted on nor judged.
        max_new_tokens: length of the unsteered answers on which KL is read.

    The unsteered answers and distributions are computed once: memory is tokens x vocabulary x 4
    bytes, so a few dozen prompts are the right size.
    """

    def __init__(
        self,
        lm: HostModel,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 48,
        batch_size: int = 32,
    ):
        if not prompts:
            raise DoseError("A dose needs prompts to be measured on; none were given.")
        self.lm, self._batch = lm, batch_size
        said = generate(lm, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
        kept = [i for i, ids in enumerate(said.token_ids) if ids]
        if not kept:
            raise DoseError(f"{lm.name} answers nothing to the dose prompts; use other prompts.")
        self.prompts = [prompts[i] for i in kept]
        self.answers = [said.token_ids[i] for i in kept]
        self._unsteered = answer_distributions(
            lm, self.prompts, self.answers, batch_size=batch_size
        )

    def measure(self, control: Control) -> Dose:
        """The dose of a control as it is.

        Raises:
            DoseError: a rewrite, which leaves the model's own distributions alone.
        """
        if isinstance(control, RewriteControl):
            raise DoseError(
                "A rewrite acts on finished answers; no token of the model moves, so it has no "
                "dose. Compare it by gain, leakage and facts kept."
            )
        control = control.ungated()
        kl = torch.cat(
            token_kl(
                self.lm, self.prompts, self.answers, control, self._unsteered,
                batch_size=self._batch,
            )
        )  # fmt: skip
        return Dose(float(kl.quantile(0.95)), float(kl.mean()), len(kl))

    def set(
        self, control: Control, dose: float, *, tolerance: float = 0.03, accept: float = 0.2
    ) -> Control:
        """The control scaled to a dose in nats; provenance carries what was measured.

        Steps after KL ~ strength^2 until the dose is bracketed, then Brent's method on log KL
        against log strength.

        Args:
            control: edits of any strength.
            dose: wanted 95th percentile, nats.
            tolerance: relative error at which the search ends.
            accept: relative error that is put up with where the dose jumps (coarse number types)
                or saturates; provenance says what was reached.

        Raises:
            DoseError: the dose is not positive, or no strength in 2^-20 to 2^20 comes near it.
        """
        if not dose > 0:
            raise DoseError(f"dose={dose}: a dose is a positive number of nats, for example 0.5.")
        tried: list[tuple[float, Dose]] = []

        @cache
        def excess(log_strength: float) -> float:
            """Log of measured over wanted dose; 0 within the tolerance."""
            strength = math.exp(log_strength)
            measured = self.measure(control.scaled(strength))
            tried.append((strength, measured))
            if abs(measured.p95 - dose) <= tolerance * dose:
                return 0.0
            p95 = measured.p95 if math.isfinite(measured.p95) else 1e12  # far too strong
            return math.log(max(p95, 1e-12) / dose)

        at, over, stride = 0.0, excess(0.0), 0.5
        while over:
            step = min(max(-over * stride, -_LARGEST_STEP), _LARGEST_STEP)
            before, at = at, at + step
            if abs(at) > _FARTHEST:
                break  # it saturates, or hardly reaches the output
            was, over, stride = over, excess(at), stride * 2
            if over * was < 0:
                brentq(excess, before, at, xtol=1e-5, maxiter=24, disp=False)
                break
        strength, measured = min(tried, key=lambda pair: _error(pair[1].p95, dose))
        if _error(measured.p95, dose) > max(tolerance, accept):
            raise DoseError(
                f"This {control.method} control cannot be set to {dose} nats: the nearest is "
                f"{measured.p95:.3g}, at {strength:.2g} times its strength. Ask for that, measure "
                "on more prompts, or edit other layers."
            )
        scaled = control.scaled(strength)
        note = dict(asked=dose, p95=measured.p95, mean=measured.mean, strength=strength,
                    tokens=measured.tokens)  # fmt: skip
        return replace(scaled, provenance={**control.provenance, "dose": note})
