"""The Inspect provider: a local task, with and without a control, whatever the batch."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import Task
from inspect_ai import eval as run
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, ResponseSchema, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate as solve
from inspect_ai.solver import system_message
from inspect_ai.util import JSONSchema

import valign.evals.inspect  # noqa: F401  an installed valign is found by its entry point
from tests.lm.reference import make_control
from tests.lm.tiny import PROMPTS, tiny_lm
from valign.evals.errors import EvalError
from valign.evals.inspect import _REFUSED
from valign.lm import generate


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model's folder with a control beside it."""
    folder = tmp_path_factory.mktemp("model")
    lm = tiny_lm()
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    make_control(lm, "add", "resid:1").save(folder / "control.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _logs_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSPECT_DISPLAY", "none")


def answers(home, *, prompts=PROMPTS, solver=None, config=None, targets=None, **arguments):
    """(text, receipt, stop reason) of each sample, and the whole log."""
    model = get_model(
        f"valign/{home}", config=config or GenerateConfig(max_tokens=6), memoize=False, **arguments
    )
    samples = [
        Sample(input=p, target=t, id=i)
        for i, (p, t) in enumerate(zip(prompts, targets or [""] * len(prompts), strict=True))
    ]
    task = Task(dataset=samples, solver=solver or solve(), scorer=match(location="exact"))
    log = run(task, model=model, display="none", log_dir="logs")[0]
    assert log.status == "success", log.error
    found = sorted(log.samples, key=lambda sample: sample.id)
    return [
        (s.output.completion, s.output.metadata["receipt"], s.output.stop_reason) for s in found
    ], log


def test_answers_are_those_of_generate_with_and_without_the_control(home):
    lm = tiny_lm()
    plain = generate(lm, PROMPTS, max_new_tokens=6).texts
    steered = generate(lm, PROMPTS, make_control(lm, "add", "resid:1"), max_new_tokens=6).texts
    assert plain != steered
    found, _ = answers(home)
    assert [text for text, _, _ in found] == plain
    assert all(not receipt["sites"] for _, receipt, _ in found)
    control = str(home / "control.safetensors")
    found, log = answers(home, control=control, targets=steered)
    assert [text for text, _, _ in found] == steered
    assert all(tuple(receipt["sites"]) == ("resid:1",) for _, receipt, _ in found)
    assert log.results.scores[0].metrics["accuracy"].value == 1.0
    weak, _ = answers(home, control=control, strength=1e-6)
    assert [text for text, _, _ in weak] == plain


def test_batches_change_nothing_and_epochs_draw_anew(home):
    config = GenerateConfig(max_tokens=6, temperature=1.0, seed=3)
    one, _ = answers(home, config=config, batch_size=1)
    many, _ = answers(home, config=config, batch_size=4)
    assert [text for text, *_ in one] == [text for text, *_ in many]
    twice, _ = answers(home, config=config, prompts=PROMPTS[:1] * 6)
    assert len({text for text, *_ in twice}) > 1
    other, _ = answers(home, config=config.model_copy(update=dict(seed=4)))
    assert [text for text, *_ in other] != [text for text, *_ in one]


def test_stops_and_system_messages_are_heard(home):
    lm = tiny_lm()
    word = generate(lm, PROMPTS[:1], max_new_tokens=6).texts[0].split()[2]
    config = GenerateConfig(max_tokens=6, stop_seqs=[word])
    [(text, _, reason)], _ = answers(home, config=config, prompts=PROMPTS[:1])
    assert word not in text and reason == "stop"
    [(text, *_)], _ = answers(
        home, prompts=PROMPTS[:1], solver=[system_message("care more"), solve()]
    )
    talk = [dict(role="system", content="care more"), dict(role="user", content=PROMPTS[0])]
    assert text == generate(lm, [talk], max_new_tokens=6).texts[0]


UNHEARD = [
    ("num_choices", 2), ("best_of", 2), ("logprobs", True), ("top_logprobs", 1),
    ("prompt_logprobs", 1), ("logit_bias", {5: 1.0}), ("top_k", 1), ("top_k", 3),
    ("frequency_penalty", 1.0), ("presence_penalty", 1.0), ("presence_penalty", -0.5),
    ("response_schema", ResponseSchema(name="x", json_schema=JSONSchema(type="object"))),
]  # fmt: skip


def with_options(home, **options):
    """The log of one sample under options."""
    config = GenerateConfig(max_tokens=6, **options)
    model = get_model(f"valign/{home}", config=config, memoize=False)
    return run(Task([Sample(input="rest ?")]), model=model, display="none", log_dir="logs")[0]


@pytest.mark.parametrize(("option", "value"), UNHEARD)
def test_what_would_be_left_unheard_is_refused(home, option, value):
    log = with_options(home, **{option: value})
    assert log.status == "error"
    assert f"does not know {option}; leave it out" in log.error.message


def test_what_says_nothing_is_not_refused(home):
    assert {option for option, _ in UNHEARD} == set(_REFUSED)
    neutral = {name: value for name, value in _REFUSED.items() if value is not None}
    assert with_options(home, **neutral).status == "success"


def test_an_argument_there_is_not_is_refused(home):
    with pytest.raises(EvalError, match="controll"):
        get_model(f"valign/{home}", controll="x", memoize=False)


def test_the_entry_point_names_the_provider():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    module = project["project"]["entry-points"]["inspect_ai"]["valign"]
    assert callable(import_module(module).valign)
