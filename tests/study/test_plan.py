import pytest

from valign.study.plan import MethodChoice, Plan, PlanError
from valign.values import Profile, load_system

SYSTEM = load_system("schwartz10")
GOOD = dict(methods=(MethodChoice("caa"),), targets=(Profile.parse("power", SYSTEM),))


def test_labels_tell_settings_of_one_method_apart():
    assert MethodChoice("caa").label == "caa"
    assert MethodChoice("caa", {"layers": "1"}).label == "caa[layers=1]"
    Plan(**{**GOOD, "methods": (MethodChoice("caa"), MethodChoice("caa", {"layers": "1"}))})


def test_a_method_is_measured_at_its_own_doses_and_at_none_where_it_has_no_strength():
    plan = Plan(**GOOD, doses=(0.1, 0.5))
    assert plan.doses_of(MethodChoice("caa")) == (0.1, 0.5)
    assert plan.doses_of(MethodChoice("svgt", {}, (None, 0.02))) == (None, 0.02)
    assert plan.doses_of(MethodChoice("prompt")) == (None,)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(targets=()), "name a value"),
        (dict(targets=(Profile.parse("", SYSTEM),)), "names no value"),
        (dict(targets=GOOD["targets"] * 2), "target power=.1 stands twice"),
        (dict(methods=()), "valign methods"),
        (dict(methods=GOOD["methods"] * 2), "method caa stands twice"),
        (dict(doses=()), "positive number"),
        (dict(doses=(0.5, 0.0)), "positive number"),
        (dict(doses=(float("nan"),)), "positive number"),
        (dict(doses=(float("inf"),)), "positive number"),
        (dict(doses=(0.5, 0.5)), "dose 0.5 stands twice"),
        (dict(methods=(MethodChoice("caa", {}, (0.5, -1.0)),)), "positive number"),
        (dict(methods=(MethodChoice("caa", {}, ()),)), "positive number"),
        (dict(methods=(MethodChoice("caa", {}, (None, None)),)), "dose None stands twice"),
        (dict(seeds=()), "needs a seed"),
        (dict(seeds=(1, 1)), "seed 1 stands twice"),
        (dict(prompts=0), "prompts must be at least 1"),
        (dict(batch_size=0), "batch_size must be at least 1"),
        (dict(max_new_tokens=0), "max_new_tokens must be at least 1"),
        (dict(neutral=-1), "neutral must be 0 or more"),
        (dict(temperature=-0.1), "temperature must be 0 or more"),
        (dict(temperature=float("nan")), "temperature must be 0 or more"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_when_it_is_made(wrong, says):
    with pytest.raises(PlanError, match=says):
        Plan(**{**GOOD, **wrong})
