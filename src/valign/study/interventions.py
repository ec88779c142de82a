"""Settings for the value causal graph: every role under every intervention, one score each.

As in "Are the Values of LLMs Structurally Aligned with Humans?" (arXiv 2501.00581) a setting is a
role before the question and, or not, one feature of a sparse autoencoder; here any control will do.

    given = intervene(lm, questionnaire, people(24), {"12": feature_control(sae, 12, target), ...})
    graph = discover(given.rows(), given.values).reduced()
    side_effects(later.changed_by_control(), graph, later.draws_by_role())
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from valign.control import Control
from valign.lm import HostModel
from valign.measure import MeasureError, Resampling
from valign.measure.graph import changes
from valign.study.ask import Scoring
from valign.study.survey import take
from valign.values.questionnaires import Questionnaire


@dataclass(frozen=True, eq=False)
class Interventions:
    """Raw value scores of all settings.

    Attributes:
        scores: (1 + n_controls, n_roles, n_values); the first has no control.
        controls: names of the others.
        values: names of the columns.
    """

    scores: np.ndarray
    controls: tuple[str, ...]
    values: tuple[str, ...]

    def rows(self) -> np.ndarray:
        """One row a setting for `valign.measure.graph.discover`, those without a score left out."""
        flat = self.scores.reshape(-1, len(self.values))
        return flat[~np.isnan(flat).any(axis=1)]

    def changed_by_control(self) -> np.ndarray:
        """c_k(v) of each control under each role, against that role alone; roles vary fastest."""
        plain = np.broadcast_to(self.scores[:1], self.scores[1:].shape)
        return changes(self.scores[1:], plain).reshape(-1, len(self.values))

    def changed_by_role(self) -> np.ndarray:
        """c_k(v) of each further role, against the first, without control."""
        return changes(self.scores[0, 1:], self.scores[0, :1])

    def draws_by_role(self, *, seed: int = 0, n_boot: int = 1000) -> Resampling:
        """Draws for `changed_by_control`: rows of one role share their base, so they stay together.

        Raises:
            MeasureError: no controls.
        """
        if not self.controls:
            raise MeasureError("Nothing was steered: there are roles only, see changed_by_role.")
        roles = np.tile(np.arange(self.scores.shape[1]), len(self.controls))
        return Resampling.of(len(roles), seed=seed, n_boot=n_boot, clusters=roles)


def intervene(
    lm: HostModel,
    questionnaire: Questionnaire,
    roles: Sequence[str],
    controls: Mapping[str, Control],
    *,
    scoring: Scoring = "generated",
    seed: int = 0,
    batch_size: int = 32,
) -> Interventions:
    """Put the questionnaire to every role, plainly and under each control.

    Args:
        roles: a line each; the first is the base of role changes.
        controls: name -> control, at the strength it is to have.
        scoring: answers that are read change or do not; log-probabilities always change a little,
            so every value would count as changed.
    """
    scores = [
        take(
            lm, questionnaire, roles, control=control, scoring=scoring, seed=seed,
            batch_size=batch_size,
        ).scores(raw=True)
        for control in (None, *controls.values())
    ]  # fmt: skip
    return Interventions(np.stack(scores), tuple(controls), tuple(questionnaire.values))
