import numpy as np
import pytest

from valign.measure import MeasureError, Paired, Resampling, leakage, see_slopes
from valign.measure.leakage import EPS, RELATIONS, noise_floor
from valign.values import Value, ValueSystem, load_system

SYSTEM = load_system("schwartz10")
NAMES = SYSTEM.names


def related(relation):
    return np.array([[SYSTEM.relation(a, b) == relation for b in NAMES] for a in NAMES])


def exact(shift, n=200, base_rate=0.0):
    """Presence whose means are exactly base_rate and base_rate + shift, prompts in step."""
    rank = (np.arange(n) + 0.5) / n
    base = np.tile((rank < base_rate)[:, None], (1, 10)).astype(float)
    steered = (rank[None, :, None] < base_rate + shift[:, None, :]).astype(float)
    return Paired.of(base, steered)


def draw(shift, n, rng, base_rate=0.2):
    """Independent draws at base_rate and base_rate + shift."""
    base = rng.random((n, 10)) < base_rate
    steered = rng.random((len(shift), n, 10)) < (base_rate + shift)[:, None, :]
    return Paired.of(base.astype(float), steered.astype(float))


def measured(paired, **options):
    return leakage(paired, SYSTEM, Resampling.of(paired.n_prompts, seed=0, n_boot=200), **options)


def test_perfect_control_leaks_nothing():
    found = measured(exact(np.eye(10)))
    assert (found.mean.value == 0).all() and (found.nlr.value == 0).all()
    assert not found.no_control.any()
    assert np.isnan(found.in_group_share.value).all()  # nothing to share out


def test_no_control_is_marked_and_not_divided_by():
    found = measured(exact(np.where(related("opposite"), 0.3, 0.0)))
    assert found.no_control.all()
    assert np.isnan(found.nlr.value).all() and np.isnan(found.summary_nlr.value)
    assert (found.mean_raw.value > 0).all()


@pytest.mark.parametrize("relation", RELATIONS)
def test_pure_leakage_to_one_relation_shows_there_and_only_there(relation):
    mask = related(relation)
    found = measured(exact(np.eye(10) * 0.5 + np.where(mask, 0.2, 0.0), n=2000))
    k = RELATIONS.index(relation)
    for other in range(3):
        expected = 0.2 / 0.5 if other == k else 0.0
        have = [i for i in range(10) if related(RELATIONS[other])[i].any()]
        np.testing.assert_allclose(found.nglr.value[have, other], expected, atol=0.02)
    share = found.in_group_share.value
    np.testing.assert_allclose(share, 1.0 if relation == "in-group" else 0.0, atol=0.02)
    count = mask.sum(axis=1)
    np.testing.assert_allclose(found.nlr_raw.value, count * 0.2 / 9 / 0.5, atol=1e-9)
    np.testing.assert_allclose(found.headroom.value, count * 0.2 / 9, atol=0.01)


def test_groups_leak_where_they_leak():
    found = measured(exact(np.eye(10) * 0.5 + np.where(related("opposite"), 0.2, 0.0), n=2000))
    groups = list(SYSTEM.groups)
    matrix = found.group_matrix.value
    a, b = groups.index("openness"), groups.index("conservation")
    assert matrix[a, b] == pytest.approx(0.2, abs=0.01)
    assert matrix[b, a] == pytest.approx(0.2, abs=0.01)
    assert abs(matrix[a, a]) < 0.01


def test_falling_values_are_no_leakage():
    shift = np.eye(10) * 0.3 - np.where(related("opposite"), 0.2, 0.0)
    found = measured(exact(shift, base_rate=0.4))
    assert (found.mean_raw.value == 0).all()
    assert (found.mean.value <= 0).all()


def test_raw_leakage_agrees_with_a_slow_loop():
    paired = draw(np.eye(10) * 0.4, 50, np.random.default_rng(0))
    found = measured(paired)
    for i in range(10):
        cells = []
        for j in range(10):
            if j != i:
                change = np.mean([paired.steered[i, k, j] for k in range(50)]) - np.mean(
                    [paired.baseline[k, j] for k in range(50)]
                )
                cells.append(max(0.0, change))
        gain = paired.steered[i, :, i].mean() - paired.baseline[:, i].mean()
        assert found.mean_raw.value[i] == pytest.approx(np.mean(cells))
        assert found.nlr_raw.value[i] == pytest.approx(np.mean(cells) / max(gain, EPS))


def test_under_no_effect_raw_leakage_is_biased_and_the_headline_is_not():
    rng = np.random.default_rng(1)
    raw, clean, cover = [], [], []
    for run in range(60):
        paired = draw(np.eye(10) * 0.5, 60, rng)
        found = leakage(paired, SYSTEM, Resampling.of(60, seed=run, n_boot=200))
        raw.append(found.mean_raw.value.mean())
        clean.append(found.mean.value.mean())
        cover.append((found.mean.low <= 0) & (found.mean.high >= 0))
    expected = 0.4 * np.sqrt(2 * 0.2 * 0.8 / 60)
    assert np.mean(raw) == pytest.approx(expected, rel=0.1)
    assert abs(np.mean(clean)) < 0.1 * expected
    assert 0.90 <= np.mean(cover) <= 0.995


def test_intervals_cover_true_leakage():
    rng = np.random.default_rng(2)
    shift = np.eye(10) * 0.5 + np.where(related("in-group"), 0.25, 0.0)
    truth = np.where(related("in-group"), 0.25, 0.0).sum(axis=1) / 9
    cover = []
    for run in range(60):
        paired = draw(shift, 150, rng)
        found = leakage(paired, SYSTEM, Resampling.of(150, seed=run, n_boot=200))
        cover.append((found.mean.low <= truth) & (truth <= found.mean.high))
    assert 0.88 <= np.mean(cover) <= 0.995


def test_the_floor_is_the_mean_of_positive_noise():
    noise = np.random.default_rng(0).normal(0, 0.3, size=(200_000, 1))
    assert noise_floor(noise)[0] == pytest.approx(np.maximum(noise, 0).mean(), rel=0.01)


def test_see_slopes_are_conditional_differences():
    rng = np.random.default_rng(0)
    a = rng.random(5000) < 0.3
    b = np.where(a, rng.random(5000) < 0.6, rng.random(5000) < 0.2)
    natural = np.stack([a, b], axis=1).astype(float)
    slopes = see_slopes(natural)
    assert slopes[0, 1] == pytest.approx(b[a].mean() - b[~a].mean())
    np.testing.assert_allclose(np.diag(slopes), 1)
    both = see_slopes(natural, np.array([[1.0, -1.0]]))
    np.testing.assert_allclose(both, [[1, -1]])  # a fully named profile is its own ideal


def test_an_ideal_controller_has_no_excess():
    slopes = np.eye(10) + np.where(related("in-group"), 0.4, 0.0)
    paired = exact(slopes * 0.5, n=2000)
    assert (measured(paired).mean.value > 0.01).all()  # it does leak under the `do` ideal
    np.testing.assert_allclose(measured(paired, slopes=slopes).mean.value, 0, atol=0.005)


def test_a_single_target_and_a_suppressed_one_work():
    shift = np.zeros((1, 10))
    shift[0, 8], shift[0, 9] = -0.3, 0.1
    rank = (np.arange(100) + 0.5) / 100
    base = np.tile((rank < 0.4)[:, None], (1, 10)).astype(float)
    steered = (rank[None, :, None] < 0.4 + shift[:, None, :]).astype(float)
    target = np.zeros((1, 10))
    target[0, 8] = -1
    found = measured(Paired.of(base, steered, targets=target))
    assert found.nlr_raw.value[0] == pytest.approx((0.1 / 9) / 0.3)
    assert np.isnan(found.raw.value[0, 8])


def test_systems_without_groups_have_no_relations():
    bare = ValueSystem("bare", "Bare", "", tuple(Value(n, n, n) for n in ("a", "b", "c")))
    base, steered = np.zeros((20, 3)), np.ones((3, 20, 3))
    found = leakage(Paired.of(base, steered), bare, Resampling.of(20, seed=0, n_boot=50))
    assert np.isnan(found.nglr.value).all()
    assert (found.nlr.value == 1).all()
    assert found.group_matrix.shape == (0, 0)


def test_columns_of_another_system_are_refused():
    paired = Paired.of(np.zeros((5, 3)), np.zeros((3, 5, 3)))
    with pytest.raises(MeasureError, match="schwartz10 has 10 values"):
        leakage(paired, SYSTEM, Resampling.of(5, seed=0))
    with pytest.raises(MeasureError, match="slopes must be"):
        measured(exact(np.eye(10)), slopes=np.zeros((2, 10)))
