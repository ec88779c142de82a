"""Tests from local files: what is asked and counted, and the comparison before and after."""

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.evals.files import ASKED, write_files
from tests.lm.reference import TARGET, make_control
from tests.lm.tiny import tiny_lm
from valign.control import TextControl
from valign.corpora.errors import MissingDataError
from valign.evals import tasks
from valign.evals.compare import compare
from valign.evals.errors import EvalError
from valign.evals.judges import Verdicts
from valign.evals.tasks import Asking, get_task, last_number
from valign.lm import generate, token_logprobs
from valign.lm.render import Verbatim


class Words:
    """Judges by a word, so that the expected verdicts are plain."""

    name = "words"

    def check(self):
        pass

    def read(self, requests, answers):
        assert all(request in ASKED for request in requests)
        of = {
            "refused": np.array(["rest" in text for text in answers], float),
            "harmful": np.array([len(text) % 2 == 0 for text in answers], float),
        }
        return Verdicts(of, (None,) * len(answers))


ASKING = Asking(max_new_tokens=8, judge=Words())


files = pytest.fixture(write_files)


def asked(name, files, lm, control=None):
    task = get_task(name)
    items = task.read(files[name])
    columns, said = task.ask(lm, control, items, ASKING)
    if task.judging:
        columns, _ = task.judging.read(items, said, ASKING.judge)
    return items, columns, said


def logp(lm, head, tail, control=None):
    """Sum over the tail's tokens, one row at a time."""
    ids = lm.tokenizer.encode(head + tail)
    start = len(lm.tokenizer.encode(head)) if head else 0
    prompt = Verbatim(tuple(ids[:start] if head else [1]))
    return float(token_logprobs(lm, [prompt], [ids[start:]], control)[0].sum())


@pytest.mark.parametrize("steered", [False, True])
def test_choices_are_scored_as_written_out(files, steered):
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1") if steered else None
    items, columns, _ = asked("truthfulqa", files, lm, control)
    _, shares, _ = asked("truthfulqa-mc2", files, lm, control)
    for row, item in enumerate(items):
        scores = [logp(lm, f"Q: {item.question}\nA:", f" {c}", control) for c in item.choices]
        assert columns["accuracy"][row, 0] == (int(np.argmax(scores)) == 1)
        p = np.exp(scores)
        assert shares["true share"][row, 0] == pytest.approx(p[:2].sum() / p.sum(), abs=1e-4)


def test_a_long_question_loses_its_beginning_but_not_the_instruction():
    lm = tiny_lm(max_position_embeddings=24)
    question = " ".join(["money", "rest", "trip", "we", "win", "work"] * 6)
    care = TextControl(target=TARGET, instruction="care more")
    tails = [" work", " rest or work"]
    found = tasks._scores(lm, care, [(question, tail) for tail in tails], ASKING)
    expected = []
    for tail in tails:
        kept = question.split()[2 + len(tail.split()) - 24 :]
        expected.append(logp(lm, " ".join(["care", "more", *kept]), tail))
    assert found == pytest.approx(expected, abs=1e-3)
    assert found != pytest.approx(tasks._scores(lm, None, [(question, t) for t in tails], ASKING))


def test_grammar_asks_which_sentence_is_likelier():
    lm = tiny_lm()
    said = [("we rest", "we we"), ("the the", "the family"), ("go", "go go")]
    pairs = [tasks.capability.MinimalPair("", "", good, bad) for good, bad in said]
    columns, _ = get_task("blimp").ask(lm, None, pairs, ASKING)
    expected = [logp(lm, "", p.good) > logp(lm, "", p.bad) for p in pairs]
    assert columns["accuracy"][:, 0].tolist() == expected


def test_mmlu_asks_for_a_letter():
    item = tasks.capability.Choice("high_school_maths", "2 ?", ("a", "b", "c", "d"), (1,))
    head, tails = tasks._mmlu_form(item)
    assert head == (
        "The following are multiple choice questions (with answers) about high school maths.\n\n"
        "2 ?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    )
    assert tails == [" A", " B", " C", " D"]


def test_perplexity_is_per_word(files):
    lm = tiny_lm()
    (outcome,) = compare(lm, make_control(lm, "add", "resid:1"), {"wikitext": files["wikitext"]})
    items = get_task("wikitext").read(files["wikitext"])
    assert len(items) == 6
    nats = -sum(logp(lm, "", text) for text in items)
    words = sum(len(text.split()) for text in items)
    assert outcome.before == pytest.approx(math.exp(nats / words), rel=1e-3)
    assert outcome.change.value == pytest.approx(outcome.after - outcome.before)
    with pytest.raises(EvalError, match="whole text"):
        care = TextControl(target=TARGET, instruction="care more")
        compare(lm, care, {"wikitext": files["wikitext"]})


@pytest.mark.parametrize(
    ("text", "number"),
    [("so 3 and 4", 4.0), ("it is 1,234.50.", 1234.5), ("-7", -7.0), ("none", None)],
)
def test_the_last_number_of_an_answer(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize("name", ["harmbench", "strongreject", "simple-safety-tests"])
def test_answers_to_harmful_requests_are_judged(name, files):
    lm = tiny_lm()
    items, columns, said = asked(name, files, lm)
    assert said == generate(lm, ASKED, max_new_tokens=8).texts
    expected = Words().read(ASKED, said).of
    assert {key: column[:, 0].tolist() for key, column in columns.items()} == {
        key: column.tolist() for key, column in expected.items()
    }
    assert len(items) == len(ASKED)


def test_over_refusal_is_kept_apart_from_refusal(files):
    items, columns, said = asked("xstest", files, tiny_lm())
    safe = np.array([item.is_safe for item in items])
    assert safe.sum() == 8
    assert (np.isnan(columns["refused, safe"][:, 0]) == ~safe).all()
    assert (np.isnan(columns["refused, unsafe"][:, 0]) == safe).all()
    merged = np.where(safe, columns["refused, safe"][:, 0], columns["refused, unsafe"][:, 0])
    assert merged.tolist() == Words().read(ASKED, said).of["refused"].tolist()


def test_questions_without_room_are_left_out_on_both_sides(files):
    lm = tiny_lm(max_position_embeddings=24)
    task = get_task("strongreject")
    items = list(task.read(files["strongreject"]))
    items[0] = items[0].__class__("long", "work " * 40, "", "")
    _, said = task.ask(lm, None, items, ASKING)
    columns, _ = task.judging.read(items, said, ASKING.judge)
    assert said[0] is None and np.isnan(columns["refused"][0, 0])
    assert not np.isnan(columns["refused"][1:]).any()
    with pytest.raises(EvalError, match="room"):
        task.ask(lm, None, items[:1], ASKING)


def test_a_comparison_is_kept_and_gone_on_with(files, tmp_path, monkeypatch):
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1")
    chosen = {name: files[name] for name in ("truthfulqa", "gsm8k", "xstest")}
    plain = compare(lm, control, chosen, asking=ASKING, limit=8)
    assert [o.task for o in plain] == ["truthfulqa", "gsm8k", "xstest", "xstest"]
    assert [o.judged and o.judged.by for o in plain] == [None, None, "words", "words"]
    assert plain[0].n == plain[1].n == 8
    assert all(o.change.low <= o.change.value <= o.change.high for o in plain)
    first = compare(lm, control, chosen, asking=ASKING, limit=8, kept=tmp_path / "kept")
    assert first == plain

    def never(*_, **__):
        raise AssertionError("asked again")

    monkeypatch.setattr(tasks, "generate", never)
    monkeypatch.setattr(tasks, "continuations", never)
    assert compare(lm, control, chosen, asking=ASKING, limit=8, kept=tmp_path / "kept") == plain
    with pytest.raises(AssertionError, match="asked again"):
        compare(lm, control.scaled(2), chosen, asking=ASKING, limit=8, kept=tmp_path / "kept")


def test_a_metric_that_no_item_speaks_of_does_not_cost_the_others(files):
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1")
    chosen = {name: files[name] for name in ("xstest", "truthfulqa")}
    outcomes = compare(lm, control, chosen, asking=ASKING, limit=1)
    found = {f"{o.task}: {o.metric}": o for o in outcomes}
    assert {name: o.n for name, o in found.items()} == {
        "xstest: refused, safe": 0, "xstest: refused, unsafe": 1, "truthfulqa: accuracy": 1,
    }  # fmt: skip
    empty = found.pop("xstest: refused, safe")
    assert empty.verdict == "not measured"
    numbers = (empty.before, empty.after, empty.change.value, empty.change.low, empty.p)
    assert np.isnan(numbers).all() and empty.judged.by == "words"
    assert all(o.verdict == "not shown" and o.p == 1 for o in found.values())


def test_the_verb_says_what_was_not_measured(files, tmp_path, monkeypatch):
    from valign.cli import app
    from valign.evals import judges

    monkeypatch.setattr(judges, "Classifiers", Words)
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    control = make_control(lm, "add", "resid:1").save(tmp_path / "model")
    arguments = ["eval", "--model", str(tmp_path / "model"), "--control", str(control), "--limit",
                 "1", "--max-new-tokens", "8", "--task", f"xstest={files['xstest']}"]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    line = next(line for line in shown.output.splitlines() if "not measured" in line)
    assert line.split()[-7:] == ["0", "–", "–", "–", "–", "not", "measured"]
    assert "nan" not in shown.output
    said = CliRunner().invoke(app, [*arguments, "--json"])
    found = [json.loads(line) for line in said.output.splitlines() if line.startswith("{")]
    empty = next(row for row in found if not row["n"])
    assert empty["verdict"] == "not measured" and empty["before"] is None


def test_a_control_without_effect_changes_nothing(files):
    lm = tiny_lm()
    none = make_control(lm, "add", "resid:1").scaled(0.0)
    found = compare(lm, none, {n: files[n] for n in ("truthfulqa", "harmbench")}, asking=ASKING)
    assert all(o.before == o.after and o.verdict == "not shown" for o in found)


def test_wrong_names_and_files_are_refused(tmp_path):
    lm = tiny_lm()
    control = make_control(lm, "add", "resid:1")
    with pytest.raises(EvalError, match="xstest"):
        compare(lm, control, {"xtest": tmp_path})
    with pytest.raises(MissingDataError, match="xstest"):
        compare(lm, control, {"xstest": tmp_path}, asking=ASKING)


def test_the_verb_prints_a_table_and_rows(files, tmp_path):
    from valign.cli import app

    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    control = make_control(lm, "add", "resid:1").save(tmp_path / "model")
    arguments = ["eval", "--model", str(tmp_path / "model"), "--control", str(control),
                 "--task", f"truthfulqa={files['truthfulqa']}",
                 "--task", f"wikitext={files['wikitext']}"]  # fmt: skip
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "wikitext: word" in shown.output
    said = CliRunner().invoke(app, [*arguments, "--json"])
    found = [json.loads(line) for line in said.output.splitlines() if line.startswith("{")]
    assert [row["task"] for row in found] == ["truthfulqa", "wikitext"]
    assert set(found[0]["change"]) == {"value", "low", "high", "n", "level"}


@pytest.mark.slow
def test_the_public_files_are_read(public_data):
    sizes = {name: len(get_task(name).read(public_data)) for name in tasks.TASKS if name != "gsm8k"}
    assert sizes["mmlu"] == 14042
    assert sizes["blimp"] == 67000
    assert sizes["xstest"] == 450
    assert sizes["wikitext"] > 50
