"""The lm-eval model: the harness's own numbers without a control, and the control's with one."""

import json

import pytest
import torch

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from tests.lm.reference import TARGET, full_logits, make_control
from tests.lm.tiny import tiny_lm
from valign.control import RewriteControl, TextControl
from valign.evals.errors import EvalError
from valign.evals.harness import ValignLM

PAIRS = [
    ("should I help the friend or win ?", " help the friend"),
    ("should I help the friend or win ?", " win"),
    ("should I help the friend or win ?", " rest"),
    ("rest or work ?", " rest"),
    ("", "the family will go on a trip"),
    ("more money or less work this week ? ", "less work"),
]
TEXTS = ["the family will go on a trip because they care", "rest or work " * 30, "win"]


def requests(kind, rows):
    return [Instance(kind, {}, row, i) for i, row in enumerate(rows)]


def scores(model, pairs=PAIRS):
    return model.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)


def perplexities(model, texts=TEXTS):
    return model.loglikelihood_rolling(
        requests("loglikelihood_rolling", [(t,) for t in texts]), disable_tqdm=True
    )


def answers(model, prompts, **options):
    rows = [(p, dict(until=["?"], max_gen_toks=8, do_sample=False, **options)) for p in prompts]
    return model.generate_until(requests("generate_until", rows), disable_tqdm=True)


def lm_and_control(**overrides):
    lm = tiny_lm(**overrides)
    return lm, make_control(lm, "add", "resid:1")


def close(found, expected):
    for (a, b), (c, d) in zip(found, expected, strict=True):
        assert a == pytest.approx(c, abs=1e-3)
        assert b == d


def test_without_a_control_the_numbers_are_the_harness_own():
    lm = tiny_lm(max_position_embeddings=64)
    theirs = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=2, max_length=64)
    ours = ValignLM(lm, batch_size=3)
    close(scores(ours), scores(theirs))
    theirs._max_length = 63  # their windows leave out the last token that is predicted
    assert perplexities(ours) == pytest.approx(perplexities(theirs), abs=1e-2)
    prompts = [context for context, _ in PAIRS if context]
    assert answers(ours, prompts) == answers(theirs, prompts)


def test_with_a_control_scores_are_those_of_a_slow_pass_over_each_text():
    lm, control = lm_and_control()
    found = scores(ValignLM(lm, control))
    model = ValignLM(lm)
    for (context, continuation), (total, greedy) in zip(PAIRS, found, strict=True):
        if context:
            head, tail = model._encode_pair(context, continuation)
        else:
            head = [model.prefix_token_id]
            tail = lm.tokenizer.encode(continuation, add_special_tokens=False)
        logits = full_logits(lm, "llama", head + tail, len(head), control)
        logp = logits.log_softmax(-1)[len(head) - 1 : -1]
        expected = float(logp.gather(1, torch.tensor(tail)[:, None]).sum())
        assert total == pytest.approx(expected, abs=1e-3)
        assert greedy == (logp.argmax(-1).tolist() == tail)
    plain = scores(model)
    assert all(abs(a - b) > 1e-3 for (a, _), (b, _) in zip(found, plain, strict=True))


def test_perplexity_is_of_the_steered_text():
    lm, control = lm_and_control()
    found = perplexities(ValignLM(lm, control), TEXTS[:1])[0]
    ids = lm.tokenizer.encode(TEXTS[0], add_special_tokens=False)
    logits = full_logits(lm, "llama", [1, *ids], 1, control).log_softmax(-1)
    assert found == pytest.approx(float(sum(logits[i, t] for i, t in enumerate(ids))), abs=1e-3)


@pytest.mark.parametrize("with_control", [False, True])
def test_neighbours_and_batch_size_change_nothing(with_control):
    lm, control = lm_and_control(max_position_embeddings=64)
    control = control if with_control else None
    one, many = ValignLM(lm, control, batch_size=1), ValignLM(lm, control, batch_size=16)
    close(scores(one), scores(many))
    close(scores(one, PAIRS[:1]), scores(many)[:1])
    assert perplexities(one) == pytest.approx(perplexities(many), abs=1e-3)
    prompts = [context for context, _ in PAIRS if context]
    assert answers(one, prompts) == answers(many, prompts)
    assert answers(one, prompts[1:2]) == answers(many, prompts)[1:2]


def test_long_contexts_lose_their_beginning_and_answers_need_room():
    lm = tiny_lm(max_position_embeddings=64)
    long = "work " * 100 + "?"
    short = ("work " * 100 + "?").split()[-62:]
    (total, _), (cut, _) = scores(ValignLM(lm), [(long, " rest"), (" ".join(short), " rest")])
    assert total == pytest.approx(cut, abs=1e-3)
    with pytest.raises(EvalError, match="no room"):
        rows = [("rest ?", dict(until=[], max_gen_toks=64))]
        ValignLM(lm).generate_until(requests("generate_until", rows))


def test_an_instruction_stands_before_the_text_or_in_the_system_message():
    lm = tiny_lm()
    care = TextControl(target=TARGET, instruction="care more")
    model = ValignLM(lm, care)
    close(
        scores(model, PAIRS[:1]), scores(ValignLM(lm), [("care more " + PAIRS[0][0], PAIRS[0][1])])
    )
    talk = model.apply_chat_template([dict(role="user", content="rest ?")])
    assert talk == "<system> care more <user> rest ? <assistant> "
    close(scores(model, [(talk, " rest")]), scores(ValignLM(lm), [(talk, " rest")]))
    with pytest.raises(EvalError, match="whole text"):
        perplexities(model)
    with pytest.raises(EvalError, match="rewrites"):
        ValignLM(lm, object.__new__(RewriteControl))


LONG = " ".join(["money", "rest", "trip", "we", "should", "win", "or", "work"] * 15) + " ?"


def test_a_long_context_loses_what_is_behind_the_instruction():
    lm = tiny_lm(max_position_embeddings=64)
    model = ValignLM(lm, TextControl(target=TARGET, instruction="care more"))
    talk = model.apply_chat_template([dict(role="user", content=LONG)])
    for context, beginning in ((LONG, "care more"), (talk, "<system> care more <user>")):
        kept = beginning.split()
        words = context.split()
        cut = " ".join([*kept, *words[len(kept) - 63 :]])  # one token is scored
        close(scores(model, [(context, " rest")]), scores(ValignLM(lm), [(cut, " rest")]))
        cut = " ".join([*kept, *words[len(kept) - 56 :]])  # eight are answered
        assert answers(model, [context]) == answers(ValignLM(lm), [cut])
        assert answers(model, [context]) != answers(ValignLM(lm), [context])


def test_an_instruction_that_a_cut_would_lose_is_refused():
    lm = tiny_lm(max_position_embeddings=64)
    model = ValignLM(lm, TextControl(target=TARGET, instruction="care more"))
    own = dict(role="system", content="a test of work")
    talk = model.apply_chat_template([own, dict(role="user", content=LONG)])
    with pytest.raises(EvalError, match=r"or work \? <assistant> '.* room for 63.* system message"):
        scores(model, [(talk, " rest")])
    with pytest.raises(EvalError, match=r"room for 56.* fewer examples"):
        answers(model, [talk])
    wordy = ValignLM(lm, TextControl(target=TARGET, instruction="care " * 70))
    with pytest.raises(EvalError, match="instruction alone takes 70"):
        scores(wordy, [("rest ?", " rest")])


TASK = """
task: toy
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}]
"""


def test_a_local_task_file_runs_under_a_control(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.tasks import TaskManager

    rows = [
        dict(question=q, choices=["rest", "work", "win"], label=i % 3)
        for i, q in enumerate(["rest or work ?", "should I win ?", "more money ?", "a trip ?"] * 3)
    ]
    data = tmp_path / "rows.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "toy.yaml").write_text(TASK.format(path=data))
    tasks = TaskManager(include_path=str(tmp_path), include_defaults=False)
    lm, control = lm_and_control()
    for chosen in (None, control):
        model = ValignLM(lm, chosen)
        found = simple_evaluate(model, tasks=["toy"], task_manager=tasks, bootstrap_iters=0)
        direct = 0
        for row in rows:
            totals = [scores(model, [(row["question"], f" {c}")])[0][0] for c in row["choices"]]
            direct += max(range(3), key=totals.__getitem__) == row["label"]
        assert found["results"]["toy"]["acc,none"] == pytest.approx(direct / len(rows))
