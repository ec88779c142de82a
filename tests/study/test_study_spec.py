"""The file of a study: what it may hold, and how faults are told."""

import pytest

from valign.study.plan import MethodChoice
from valign.study.study_spec import StudyFileError, StudySpec, cells_of

GOOD = dict(models=["reference"], methods=["caa"], values=["benevolence"])


def faults(**more):
    with pytest.raises(StudyFileError) as found:
        StudySpec.check({**GOOD, **more}, "s.yaml")
    return str(found.value)


def test_a_file_is_read(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        "title: T\nmodels: [reference, {path: /x/mine, dtype: float32}]\n"
        "methods: [caa, {caa: {specific: true}}]\nvalues: [benevolence, power=-1]\n"
        "doses: [0.25, 0.5]\nseeds: [0, 1]\nprompts: 12\ncorpus: world\n"
    )
    spec = StudySpec.read(file)
    assert [m.name for m in spec.models] == ["reference", "mine"]
    plan = spec.plan
    assert plan.methods[-2:] == (MethodChoice("caa"), MethodChoice("caa", {"specific": True}))
    assert [m.label for m in plan.methods[:3]] == ["none", "random", "prompt"]
    assert list(map(str, plan.targets)) == ["benevolence=+1", "power=-1"]
    assert plan.prompts == 12 and plan.doses == (0.25, 0.5)
    again = StudySpec.of_folder({"settings": spec.settings(), "grid": spec.grid()})
    assert again == spec


def test_cells_are_the_grid():
    spec = StudySpec.check({**GOOD, "values": "each", "doses": [0.1, 0.5], "seeds": [0, 1, 2]})
    cells = cells_of(spec.plan, ["reference"])
    # unsteered; none and prompt without dose, random and CAA at two
    assert len(cells) == len(set(cells)) == 3 * (1 + 10 * (1 + 1 + 2 + 2))
    assert cells[0].target == "" and cells[0].method == "none"
    groups = [cell.fit for cell in cells]
    assert all(groups[i] in (groups[i - 1],) or groups[i] not in groups[:i]
               for i in range(1, len(groups)))  # fmt: skip


def test_a_method_may_have_doses_of_its_own():
    spec = StudySpec.check({
        **GOOD, "methods": ["caa", {"name": "svgt", "doses": ["fitted", 0.02]},
                            {"name": "random", "doses": "fitted"}],
        "doses": [0.1, 0.5],
    })  # fmt: skip
    doses = {m.name: spec.plan.doses_of(m) for m in spec.plan.methods}
    assert doses == {
        "none": (None,), "prompt": (None,), "caa": (0.1, 0.5), "svgt": (None, 0.02),
        "random": (None,),
    }  # fmt: skip
    assert len(cells_of(spec.plan, ["reference"])) == 1 + 1 + 1 + 2 + 2 + 1
    again = StudySpec.of_folder({"settings": spec.settings(), "grid": spec.grid()})
    assert again.plan == spec.plan


def test_the_grid_is_no_setting():
    spec = StudySpec.check(GOOD)
    wider = StudySpec.check({**GOOD, "seeds": [0, 1], "doses": [0.1], "values": "each"})
    assert spec.settings() == wider.settings()
    assert spec.settings() != StudySpec.check({**GOOD, "prompts": 5}).settings()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (dict(method=["caa"]), r"no key 'method'. Did you mean methods\?"),
        (dict(methods=["caa", "nevva"]), r"methods, row 2: .*'nevva'. Did you mean neva\?"),
        (dict(methods=[{"caa": {"layres": 1}}]), r"methods, row 1: .*'layres'. Did you mean"),
        (dict(methods=[]), r"methods: "),
        (dict(values=["benevolence", "benevolance"]), r"values, row 2: .*Nearest: benevolence"),
        (dict(values=["each", "power"]), r"values, row 1: `each` stands alone"),
        (dict(models=[{"path": "a/x"}, {"path": "b/x"}]), r"rows 1 and 2 are all called 'x'"),
        (dict(models=[{"path": "a", "dtpe": "x"}]), r"models, row 1: .*'dtpe'. Did you mean dtype"),
        (dict(models=[3]), r"models, row 1: .*\(got 3\)"),
        (dict(doses=[0.5, "much"]), r"doses, row 2: .*\(got 'much'\)"),
        (dict(doses=[0.5, -1]), r"positive number of nats"),
        (
            dict(methods=[{"name": "caa", "doses": [0]}]),
            r"methods, row 1: .*positive number of nats",
        ),
        (dict(seeds=[1, 1]), r"seed 1 stands twice"),
        (dict(prompts=0), r"prompts must be at least 1"),
        (dict(corpus="valuetext"), r"corpus: .*valuetext"),
    ],
)
def test_faults_name_the_row_and_the_nearest_name(more, says):
    import re

    assert re.search(says, faults(**more), re.DOTALL), faults(**more)


def test_all_faults_are_told_at_once():
    said = faults(methods=["nevva", "caaa"], values=["powr"])
    assert "3 faults" in said and said.count("\n- ") == 3


def test_what_is_no_study_is_refused(tmp_path):
    for text, says in (("- 1\n", "holds list"), ("a: [", "no YAML"), ("", "NoneType")):
        file = tmp_path / "s.yaml"
        file.write_text(text)
        with pytest.raises(StudyFileError, match=says):
            StudySpec.read(file)
    with pytest.raises(StudyFileError, match="Cannot read"):
        StudySpec.read(tmp_path / "none.yaml")
    with pytest.raises(StudyFileError, match="values is missing"):
        StudySpec.check({"models": ["reference"], "methods": ["caa"]})


def test_a_runner_can_be_sent_to_workers():
    import pickle

    from valign.study.study_runner import CellRunner

    runner = CellRunner(StudySpec.check(GOOD), threads=2)
    assert pickle.loads(pickle.dumps(runner)).spec == runner.spec
