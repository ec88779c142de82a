"""Angular steering: what is turned, how far, and what stays."""

import math

import pytest
import torch

from tests.lm.tiny import tiny_lm
from tests.methods.test_scorers import acted
from tests.methods.toy import SYSTEM, toy_corpus
from valign.methods import get_method
from valign.methods.angular import _principal_plane
from valign.values import Profile

CORPUS = toy_corpus()
TARGET = Profile.of(SYSTEM, benevolence=1)


def fitted(angle=0.0, target=TARGET, **settings):
    lm = tiny_lm()
    return lm, get_method("angular", layers=1, angle=angle, **settings).fit(lm, CORPUS, target)


@pytest.mark.parametrize("angle", [0.0, 90.0, -150.0])
def test_the_plane_points_where_asked_and_the_length_stays(angle):
    lm, control = fitted(angle, plane="pca")
    before, after = acted(lm, control.scaled(10))
    rows = control.edits[0].tensors["plane"]
    x, y = (rows @ after).tolist()
    off = math.degrees(math.atan2(y, x)) - angle
    assert abs((off + 180) % 360 - 180) < 1e-3
    torch.testing.assert_close(after.norm(), before.norm())
    torch.testing.assert_close(after - rows.T @ (rows @ after), before - rows.T @ (rows @ before))


@pytest.mark.parametrize("angle", [0.0, 40.0, 180.0])
def test_in_its_own_plane_the_whole_activation_turns(angle):
    lm, control = fitted(angle)
    before, after = acted(lm, control.scaled(10))
    (d,) = control.edits[0].tensors["plane"]
    torch.testing.assert_close(after.norm(), before.norm())
    cosine = float(d @ after / after.norm())
    assert cosine == pytest.approx(math.cos(math.radians(angle)), abs=1e-4)
    rest = before - (d @ before) * d
    left = after - (d @ after) * d
    if angle == 40.0:
        torch.testing.assert_close(left / left.norm(), rest / rest.norm(), atol=1e-4, rtol=1e-4)


def test_strength_is_the_farthest_turn_in_radians():
    lm, control = fitted(180.0)
    turned = []
    for strength in (0.0, 0.1, 0.3):
        before, after = acted(lm, control.scaled(strength))
        cosine = torch.nn.functional.cosine_similarity(before, after, dim=0)
        turned.append(float(cosine.clamp(-1, 1).acos()))
    assert turned == pytest.approx([0.0, 0.1, 0.3], abs=1e-3)


def test_zero_degrees_lie_along_the_mean_difference_and_away_is_its_reverse():
    lm, toward = fitted()
    caa = get_method("caa", layers=1).fit(lm, CORPUS, TARGET).edits[0].tensors["vector"]
    first = toward.edits[0].tensors["plane"][0]
    torch.testing.assert_close(first, caa / caa.norm())
    away = get_method("angular", layers=1).fit(lm, CORPUS, Profile.of(SYSTEM, benevolence=-1))
    torch.testing.assert_close(away.edits[0].tensors["plane"][0], -first)


def test_the_papers_plane_holds_the_direction_most_like_the_others():
    directions = torch.tensor([[3.0, 0.1, 0], [2.0, 0.0, 0], [0.0, 0.0, 5.0]])
    plane = _principal_plane(directions)
    torch.testing.assert_close(plane @ plane.T, torch.eye(2), atol=1e-5, rtol=0)
    assert torch.nn.functional.cosine_similarity(plane[0], directions[0], dim=0) > 0.99
    assert abs(plane[1][2]) > 0.99  # the first principal component, made orthogonal


def test_every_layer_shares_the_papers_plane():
    lm = tiny_lm()
    control = get_method("angular", plane="pca", layers="0,1,2").fit(lm, CORPUS, TARGET)
    first, *others = [edit.tensors["plane"] for edit in control.edits]
    assert all(torch.equal(first, other) for other in others)
    assert len(others) == 2
