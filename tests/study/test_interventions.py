"""Roles and SAE features as interventions for the causal graph of values."""

import numpy as np
import torch

from tests.methods.toy import SYSTEM
from tests.study.asking import reader_lm
from valign.control import Site
from valign.measure.graph import ValueGraph, side_effects
from valign.methods.sae import SparseAutoencoder, feature_control
from valign.study.interventions import Interventions, intervene
from valign.study.respondents import people
from valign.study.survey import take
from valign.values import Profile
from valign.values.questionnaires import load_questionnaire


def given():
    scores = np.zeros((3, 2, 3))
    scores[0, 1] = [1, 0, 0]  # the second role
    scores[1] = scores[0] + [0, 1, 1]  # the first control moves two values under both roles
    scores[2] = scores[0]
    scores[2, 1, 2] -= 1  # the second one, under the second role
    return Interventions(scores, ("one", "two"), ("a", "b", "c"))


def test_changes_are_counted_against_the_right_base():
    found = given()
    assert found.rows().shape == (6, 3)
    assert found.changed_by_role().tolist() == [[True, False, False]]
    assert found.changed_by_control().astype(int).tolist() == [
        [0, 1, 1], [0, 1, 1], [0, 0, 0], [0, 0, 1],
    ]  # fmt: skip
    draws = found.draws_by_role(n_boot=50)
    assert draws.unit.tolist() == [0, 1, 0, 1]
    graph = ValueGraph.of(found.values, [("b", "c")])
    effects = side_effects(found.changed_by_control(), graph, draws, permutations=20)
    assert effects.mean_expected.at().value == 1  # c always changed when b did


def test_settings_without_an_answer_are_left_out():
    found = given()
    found.scores[1, 0, 0] = np.nan
    assert found.rows().shape == (5, 3)


def test_features_are_put_to_every_role():
    lm = reader_lm()
    torch.manual_seed(0)
    sae = SparseAutoencoder(
        w_enc=torch.randn(32, 8), b_enc=torch.zeros(8), w_dec=torch.randn(8, 32),
        b_dec=torch.zeros(32), site=Site("resid", 1), activation="relu",
    )  # fmt: skip
    target = Profile.of(SYSTEM, power=1)
    controls = {str(j): feature_control(sae, j, target).scaled(20) for j in (1, 5)}
    questionnaire = load_questionnaire("portraits10")
    roles = people(2)
    found = intervene(lm, questionnaire, roles, controls, scoring="logprob")
    assert found.scores.shape == (3, 2, len(questionnaire.values))
    assert found.controls == ("1", "5")
    alone = take(lm, questionnaire, roles, control=controls["5"]).scores(raw=True)
    np.testing.assert_allclose(found.scores[2], alone)
    assert not np.allclose(found.scores[0], found.scores[1])
