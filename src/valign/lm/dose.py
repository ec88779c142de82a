"""Dose: how far a control pushes the model, in nats, the same unit for every method.

dose = 95th percentile over answer tokens of KL(steered || unsteered), teacher-forced on the
model's own unsteered answers to held-out prompts, with the context gate held open (a dose says
what the control does when it acts). Ours; the papers set strength by a probability or a raw
coefficient, which cannot be compared across methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from valign.control.control import Control, EditsControl
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
        """The dose of a control as it is."""
        if isinstance(control, EditsControl):
            control = replace(control, gate=None)
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

        Secant steps on log KL against log strength (KL grows about with the square), kept inside
        a bracket so that saturation cannot throw them off.

        Raises:
            DoseError: the dose is not positive, or no strength up to 2^20 reaches it within the
                tolerance.
        """
        if not dose > 0:
            raise DoseError(f"dose={dose}: a dose is a positive number of nats, for example 0.5.")
        strength, low, high = 1.0, 0.0, float("inf")
        measured = self.measure(control.scaled(strength))
        best = (strength, measured)
        for _ in range(24):
            if abs(measured.p95 - dose) <= tolerance * dose:
                break
            if measured.p95 < dose:
                low = strength
            else:
                high = strength
            guess = strength * min(max((dose / max(measured.p95, 1e-9)) ** 0.5, 1 / 16), 16)
            inside = low < guess < high
            if not inside:
                guess = (low * high) ** 0.5 if low and high < float("inf") else (low + high) / 2
            if low and high / low < 1 + 1e-5:
                break  # the dose jumps here
            strength = guess
            if strength > 2**20:
                raise DoseError(
                    f"No strength brings this {control.method} control to {dose} nats (reached "
                    f"{measured.p95:.3g}): its edits hardly reach the output. Try other layers."
                )
            measured = self.measure(control.scaled(strength))
            if not abs(measured.p95 - dose) >= abs(best[1].p95 - dose):  # also leaves a NaN
                best = (strength, measured)
        strength, measured = best
        if not abs(measured.p95 - dose) <= max(tolerance, accept) * dose:
            raise DoseError(
                f"This {control.method} control cannot be set to {dose} nats: the nearest is "
                f"{measured.p95:.3g}. Ask for that, or measure on more prompts."
            )
        scaled = control.scaled(strength)
        note = dict(asked=dose, p95=measured.p95, mean=measured.mean, strength=strength,
                    tokens=measured.tokens)  # fmt: skip
        return replace(scaled, provenance={**control.provenance, "dose": note})
