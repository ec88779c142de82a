import pytest

from tests.lm.tiny import PROMPTS, tiny_lm
from tests.methods.toy import SYSTEM, toy_corpus
from valign.control import EditError
from valign.lm import generate
from valign.methods import get_method
from valign.methods.role import roles
from valign.values import Profile, available_systems, load_system

TARGET = Profile.of(SYSTEM, benevolence=1, power=-0.5)


def instruction(**settings):
    return get_method("role", **settings).fit(tiny_lm(), toy_corpus(), TARGET).instruction


def test_a_role_holds_the_values_towards_and_lacks_those_away():
    said = instruction()
    assert "benevolence comes before everything" in said
    assert "cares nothing for power" in said
    assert SYSTEM["power"].definition.rstrip(".") in said
    assert "{" not in said and "Job" not in said


def test_a_role_is_no_repetition_of_the_prompt_baseline():
    prompt = get_method("prompt").fit(tiny_lm(), toy_corpus(), TARGET).instruction
    assert instruction() != prompt
    assert "high level" not in instruction()


def test_traits_are_drawn_by_seed():
    assert instruction(traits=True) == instruction(traits=True)
    drawn = {instruction(traits=True, seed=seed) for seed in range(8)}
    assert len(drawn) > 4
    assert all("Job: " in said and "MBTI: " in said for said in drawn)
    assert len(roles()["type"]) == 16


def test_every_value_of_every_system_can_be_played():
    from valign.methods.role import Role

    for name in available_systems():
        system = load_system(name)
        for value in system.names:
            for score in (1, -1):
                target = Profile.from_mapping(system, {value: score})
                said = Role()._fit(None, None, target).instruction
                assert system[value].title.lower() in said and "{" not in said


def test_it_reaches_the_prompt_and_has_no_strength():
    control = get_method("role").fit(tiny_lm(), toy_corpus(), TARGET)
    said = generate(tiny_lm(), PROMPTS[:1], control, max_new_tokens=1)
    assert said.receipts[0].instruction == control.instruction
    with pytest.raises(EditError, match="no strength"):
        control.scaled(2.0)
