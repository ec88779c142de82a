"""Value systems: bundled files, relations, circle geometry, users' own files."""

import numpy as np
import pytest

from valign.values import (
    NoCircleError,
    SystemFileError,
    UnknownValueError,
    ValignError,
    available_systems,
    load_system,
)

SIZES = {
    "schwartz10": 10,
    "schwartz19": 19,
    "higher-order4": 4,
    "inglehart-welzel": 4,
    "hh": 3,
    "harm": 9,
}
CIRCLES = ("schwartz10", "schwartz19", "higher-order4")


def test_bundled_systems_are_the_documented_ones():
    assert {name: len(load_system(name)) for name in available_systems()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_bundled_system_holds_together(name):
    system = load_system(name)
    assert system.name == name
    assert len({value.definition for value in system}) == len(system)
    homes = [v for members in system.groups.values() for v in members]
    assert len(homes) == len(set(homes)), "a value stands in two home groups"
    assert dict(system.group_titles).keys() == system.groups.keys(), "a group without values"
    assert load_system(name) is system


def test_only_harms_have_negative_worth():
    for name in available_systems():
        assert {value.worth for value in load_system(name)} == {-1 if name == "harm" else 1}


@pytest.mark.parametrize("name", [*SIZES])
@pytest.mark.parametrize("shared", [False, True])
def test_relation_is_symmetric(name, shared):
    system = load_system(name)
    for a in system.names:
        assert system.relation(a, a, shared=shared) == "self"
        for b in system.names:
            assert system.relation(a, b, shared=shared) == system.relation(b, a, shared=shared)


@pytest.mark.parametrize(
    ("a", "b", "home", "shared"),
    [
        ("benevolence", "universalism", "in-group", "in-group"),
        ("benevolence", "power", "opposite", "opposite"),
        ("benevolence", "security", "adjacent", "adjacent"),
        ("hedonism", "stimulation", "in-group", "in-group"),
        ("hedonism", "achievement", "adjacent", "in-group"),
        ("hedonism", "benevolence", "adjacent", "opposite"),
        ("hedonism", "tradition", "opposite", "opposite"),
    ],
)
def test_relations_of_the_ten(a, b, home, shared):
    system = load_system("schwartz10")
    assert system.relation(a, b) == home
    assert system.relation(a, b, shared=True) == shared


def test_relations_without_a_circle():
    system = load_system("inglehart-welzel")
    assert system.relation("survival", "self-expression") == "opposite"
    assert system.relation("survival", "traditional") == "unrelated"
    assert load_system("hh").relation("helpful", "honest") == "unrelated"


@pytest.mark.parametrize("name", CIRCLES)
def test_circle_geometry(name):
    system = load_system(name)
    distance, similarity = system.distance(), system.similarity()
    assert (np.diff(system.angles()) >= 0).all(), "values are not in circle order"
    for i, a in enumerate(system):
        for j, b in enumerate(system):
            gap = abs(a.angle - b.angle)
            assert distance[i, j] == pytest.approx(min(gap, 360 - gap))
            assert similarity[i, j] == pytest.approx(np.cos(np.radians(a.angle - b.angle)))


@pytest.mark.parametrize("name", CIRCLES)
def test_facing_groups_lie_further_apart_than_group_mates(name):
    system, distance = load_system(name), load_system(name).distance()
    by_relation: dict[str, list[float]] = {}
    for i, a in enumerate(system.names):
        for j, b in enumerate(system.names):
            by_relation.setdefault(system.relation(a, b), []).append(distance[i, j])
    means = [np.mean(by_relation[r]) for r in ("in-group", "adjacent", "opposite")
             if r in by_relation]  # fmt: skip
    assert means == sorted(means) and max(by_relation["self"]) == 0


def test_conformity_and_tradition_share_a_wedge():
    system = load_system()
    assert system.distance()[system.index("conformity"), system.index("tradition")] == 0


def test_no_circle_is_refused():
    with pytest.raises(NoCircleError, match="hh has no circle"):
        load_system("hh").distance()


@pytest.mark.parametrize(
    ("asked", "near"),
    [("benevolense", "benevolence"), ("self direction", "self-direction"),
     ("kindness", "benevolence"), ("Power", "power")],
)  # fmt: skip
def test_unknown_value_suggests_the_nearest(asked, near):
    with pytest.raises(UnknownValueError) as caught:
        load_system().index(asked)
    assert caught.value.near[0] == near
    assert near in str(caught.value) and asked in str(caught.value)
    assert isinstance(caught.value, ValignError) and isinstance(caught.value, KeyError)


OWN = """
name: mine
title: Mine
source: own
groups: {calm: Calm, loud: Loud}
opposites: [[calm, loud]]
values:
  - {name: rest, title: Rest, definition: doing nothing, group: calm}
  - {name: noise, title: Noise, definition: being heard, group: loud}
"""


def test_own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    system = load_system(path)
    assert system.names == ("rest", "noise")
    assert system.relation("rest", "noise") == "opposite"
    path.write_text(OWN.replace("name: rest", "name: sleep"))
    assert load_system(path).names == ("sleep", "noise"), "a changed file is read again"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("group: calm", "group: clam", "unknown group 'clam'; nearest: calm"),
        ("name: noise", "name: rest", "named twice: rest"),
        ("name: noise", "name: Noise!", "values.1.name"),
        ("definition: being heard, ", "", "values.1.definition"),
        ("group: calm", "group: calm, angle: 400", "values.0.angle"),
        ("group: calm", "group: calm, angle: 10", "all or none"),
        ("group: calm", "group: calm, colour: red", "values.0.colour"),
        ("[calm, loud]", "[calm, calm]", "opposite of itself: calm"),
        ("values:", "values: [", "not YAML"),
    ],
)
def test_own_file_errors_name_the_place(tmp_path, old, new, message):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN.replace(old, new, 1))
    with pytest.raises(SystemFileError) as caught:
        load_system(path)
    assert message in str(caught.value)


def test_unknown_system_and_missing_file(tmp_path):
    with pytest.raises(SystemFileError, match="Did you mean schwartz10"):
        load_system("schwarz10")
    with pytest.raises(SystemFileError, match="No such file"):
        load_system(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SystemFileError, match="UTF-8"):
        load_system(tmp_path / "bytes.yaml")
