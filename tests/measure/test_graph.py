"""The causal value graph: discovery on a known system, reduction, side effects by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from valign.measure import MeasureError, Resampling
from valign.measure.graph import ValueGraph, changes, discover, edge_stability, side_effects

NAMES = ("a", "b", "c", "d", "e")

# Edges of the graphs published with arXiv 2501.00581 (facts from its repository, MIT).
GEMMA = """Empathy>Achievement Resilience>Achievement Anxiety>Aesthetic Empathy>Aesthetic
Breadth>Anxiety Resilience>Anxiety Theoretical>Anxiety Religious>Breadth Uncertainty>Breadth
Understanding>Breadth Empathy>Economic Religious>Empathy Cynicism>Empathy Theoretical>Empathy
Organization>Coping Coping>Organization Religious>Political Social>Political Coping>Religious
Religious>Coping Complexity>Resilience Cynicism>Resilience Social>Uncertainty Uncertainty>Social
Complexity>Theoretical Uncertainty>Cynicism Understanding>Cynicism Uncertainty>Theoretical"""
LLAMA = """Achievement>Breadth Coping>Achievement Religious>Achievement Anxiety>Aesthetic
Political>Aesthetic Breadth>Anxiety Anxiety>Organization Economic>Resilience Resilience>Empathy
Empathy>Social Organization>Coping Organization>Cynicism Political>Cynicism Theoretical>Coping
Religious>Uncertainty Uncertainty>Religious Understanding>Resilience Cynicism>Complexity
Complexity>Understanding"""


def graph_of(text: str) -> ValueGraph:
    pairs = [tuple(edge.split(">")) for edge in text.split()]
    return ValueGraph.of(sorted({name for pair in pairs for name in pair}), pairs)


def settings(n=500, seed=0):
    """a and b act on c, c on d; e never changes."""
    rng = np.random.default_rng(seed)
    a, b, u, v = rng.normal(size=(4, n))
    c = a + b + 0.5 * u
    return np.stack([a, b, c, c + 0.5 * v, np.zeros(n)], axis=1)


@pytest.fixture
def pc():
    pytest.importorskip("causallearn")


@pytest.mark.parametrize(("text", "edges"), [(GEMMA, 28), (LLAMA, 19)])
def test_published_graphs_cannot_be_reduced_further(text, edges):
    graph = graph_of(text)
    assert len(graph.pairs()) == edges and len(graph.names) == 17
    assert graph.reduced().pairs() == graph.pairs()


def test_an_implied_edge_is_dropped():
    graph = ValueGraph.of(NAMES, [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")])
    assert graph.reduced().pairs() == (("a", "b"), ("b", "c"), ("c", "d"))


@given(arrays(bool, (5, 5)))
def test_reduction_keeps_what_can_be_reached(edges):
    np.fill_diagonal(edges, False)
    graph = ValueGraph(NAMES, edges)
    small = graph.reduced()
    assert np.array_equal(small.descendants(), graph.descendants())
    assert not (small.edges & ~graph.edges).any()
    assert np.array_equal(small.reduced().edges, small.edges)


def test_descendants_of_a_cycle_leave_the_value_itself_out():
    graph = ValueGraph.of("abc", [("a", "b"), ("b", "a"), ("b", "c")])
    assert np.array_equal(graph.descendants(), [[0, 1, 1], [1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize("ranks", [False, True])
def test_a_known_system_is_found(pc, ranks):
    found = discover(settings(), NAMES, ranks=ranks)
    assert found.pairs() == (("a", "c"), ("b", "c"), ("c", "d"))


def test_ranks_do_not_see_a_bent_scale(pc):
    bent = np.sign(settings()) * np.abs(settings()) ** 3
    assert discover(bent, NAMES, ranks=True).pairs() == (("a", "c"), ("b", "c"), ("c", "d"))


def test_an_edge_without_direction_becomes_two(pc):
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    found = discover(np.stack([a, a + rng.normal(size=300)], axis=1), "ab")
    assert found.pairs() == (("a", "b"), ("b", "a"))


def test_stable_edges_are_those_of_the_system(pc):
    share = edge_stability(settings(300), NAMES, seed=0, n_boot=20)
    assert ((share >= 0) & (share <= 1)).all()
    assert ValueGraph(NAMES, share > 0.5).pairs() == (("a", "c"), ("b", "c"), ("c", "d"))


def test_scores_that_determine_each_other_are_refused(pc):
    x = settings()[:, :4]
    with pytest.raises(MeasureError, match="raw scores"):
        discover(x - x.mean(axis=1, keepdims=True), NAMES[:4])
    with pytest.raises(MeasureError, match="more than"):
        discover(x[:6], NAMES[:4])


def test_side_effects_by_hand():
    graph = ValueGraph.of("abc", [("a", "b")])
    changed = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], bool)
    found = side_effects(changed, graph, Resampling.of(6, seed=0, n_boot=50), permutations=6)
    # a changed 4 times: b in 3 of them, c in 1
    assert found.expected.value[0] == 0.75 and found.unexpected.value[0] == 0.25
    # b changed 4 times: a in 3, c in 1; it has no descendants. c changed twice: a once, b once
    assert np.isnan(found.expected.value[1]) and found.unexpected.value[1] == 0.5
    assert found.unexpected.value[2] == 0.5
    assert found.mean_expected.at().value == 0.75
    assert found.mean_unexpected.at().value == pytest.approx((0.25 + 0.5 + 0.5) / 3)
    assert found.gap.estimate.value == pytest.approx(0.75 - 1.25 / 3)


def test_a_graph_that_foretells_beats_its_shuffles():
    rng = np.random.default_rng(0)
    names = tuple("abcdefgh")
    graph = ValueGraph.of(names, [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")])
    causes = rng.random((200, 4)) < 0.3
    effects = causes & (rng.random((200, 4)) < 0.9)
    changed = np.stack([causes, effects], axis=2).reshape(200, 8)
    draws = Resampling.of(200, seed=0, n_boot=200)
    found = side_effects(changed, graph, draws, permutations=199)
    assert found.gap.p <= 0.02 and found.gap.estimate.low > 0.3
    wrong = ValueGraph.of(names, [("a", "d"), ("c", "f"), ("e", "h"), ("g", "b")])
    assert side_effects(changed, wrong, draws, permutations=199).gap.p > 0.05


def test_values_that_never_change_say_nothing():
    graph = ValueGraph.of("ab", [("a", "b")])
    found = side_effects(np.zeros((5, 2), bool), graph, Resampling.of(5, seed=0, n_boot=20))
    assert np.isnan(found.gap.estimate.value) and np.isnan(found.gap.p)


def test_changes_are_told_from_rounding():
    assert changes(np.array([[0.1 + 0.2, 1.0]]), np.array([0.3, 0.0])).tolist() == [[False, True]]


def test_misshapen_input_is_refused():
    with pytest.raises(MeasureError, match="no edge"):
        ValueGraph.of("ab", [("a", "z")])
    with pytest.raises(MeasureError, match="no edge"):
        ValueGraph.of("ab", [("a", "a")])
    with pytest.raises(MeasureError, match="yes or no"):
        side_effects(np.full((3, 2), 0.5), ValueGraph.of("ab", []), Resampling.of(3, seed=0))
