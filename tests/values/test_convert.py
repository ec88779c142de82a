"""From finer value systems to coarser ones."""

from itertools import pairwise

import numpy as np
import pytest

from valign.values import ConversionError, Profile, convert, load_system


def test_ten_to_four_is_the_mean_of_the_groups():
    ten = load_system("schwartz10")
    profile = Profile.from_array(ten, np.linspace(-1, 1, 10))
    four = convert(profile, "schwartz10", "higher-order4")
    assert four == pytest.approx(
        {group: np.mean([profile[v] for v in members]) for group, members in ten.groups.items()}
    )


@pytest.mark.parametrize(
    ("source", "target"),
    list(pairwise(("schwartz19", "schwartz10", "higher-order4"))),
)
def test_targets_are_complete_and_no_part_counts_twice(source, target):
    values = load_system(source)
    one_hot = np.eye(len(values))
    found = convert(dict(zip(values.names, one_hot, strict=True)), source, target)
    assert tuple(found) == load_system(target).names
    weights = np.array(list(found.values()))
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert ((weights > 0).sum(axis=0) <= 1).all()
    left_out = {n for n, w in zip(values.names, weights.sum(axis=0), strict=True) if w == 0}
    assert left_out == ({"face", "humility"} if source == "schwartz19" else set())


def test_nineteen_to_ten_keeps_groups():
    fine, ten = load_system("schwartz19"), load_system("schwartz10")
    for value in fine:
        if value.name in ("face", "humility"):
            continue
        scores = dict.fromkeys(fine.names, 0.0) | {value.name: 1.0}
        (home,) = [v for v, s in convert(scores, "schwartz19", "schwartz10").items() if s]
        assert ten[home].group == value.group


def test_arrays_are_converted_for_many_texts_at_once():
    ten = load_system("schwartz10")
    many = np.random.default_rng(0).normal(size=(10, 7))
    found = convert(dict(zip(ten.names, many, strict=True)), "schwartz10", "higher-order4")
    np.testing.assert_allclose(found["self-enhancement"], (many[3] + many[4]) / 2)


def test_valueeval_categories(public_data):
    header = (public_data / "valueeval23" / "labels-training.tsv").read_text().split("\n", 1)[0]
    categories = header.split("\t")[1:]
    scores = {name: float(i) for i, name in enumerate(categories)}
    assert convert(scores, "valueeval23", "schwartz10")["power"] == np.mean(
        [scores["Power: dominance"], scores["Power: resources"]]
    )
    assert len(convert(scores, "valueeval23", "schwartz19")) == 19


def test_errors():
    with pytest.raises(ConversionError, match="schwartz10 -> higher-order4"):
        convert({}, "schwartz10", "schwartz19")
    with pytest.raises(ConversionError, match=r"missing: .*power"):
        convert({"achievement": 1.0}, "schwartz10", "higher-order4")
