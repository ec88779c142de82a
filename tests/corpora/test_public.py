"""Public sets: sizes as published, fields where they belong, errors without the data."""

import sys
import types

import pytest

from valign.corpora import CorpusError, MissingDataError, public
from valign.values import load_system

SIZES = [
    ("breaking_nli", (), 8193),
    ("cad_nli", ("test",), 2000),
    ("daily_dilemmas", (), 1360),
    ("dolly_sample", (), 1000),
    ("esnli", ("dev",), 9842),
    ("esnli", ("test",), 9824),
    ("fulcra", (), 1718),
    ("harmbench", ("all",), 400),
    ("harmbench", ("test",), 320),
    ("harmbench", ("validation",), 80),
    ("med", (), 5382),
    ("mmlu", ("dev",), 57 * 5),
    ("mmlu", ("test",), 14042),
    ("openai_moderation", (), 1680),
    ("persona_evals", ("risk-averse",), 1000),
    ("portraits", (), 21),
    ("self_instruct", ("seed",), 175),
    ("self_instruct", ("user",), 252),
    ("simple_safety_tests", (), 100),
    ("strongreject", (), 313),
    ("truthfulqa", ("mc1",), 817),
    ("truthfulqa", ("mc2",), 817),
    ("valuebench", (), 1988),
    ("valueeval23", ("train",), 5393),
    ("valueeval23", ("validation",), 1896),
    ("valueeval23", ("test",), 1576),
    ("valueeval23", ("zhihu",), 100),
    ("xstest", (), 450),
    ("xstest_completions", ("gpt4",), 450),
]


@pytest.mark.parametrize(("name", "args", "size"), SIZES)
def test_sizes(public_data, name, args, size):
    rows = getattr(public, name)(*args, folder=public_data)
    assert len(rows) == size
    assert isinstance(rows, tuple) and len({type(row) for row in rows}) == 1
    # A wrong column shows as an empty text; what may be empty has a default or says so.
    optional = {"input", "context", "kind", "labels", "category"}
    for field in set(vars(rows[0])) - optional:
        empty = sum(vars(row)[field] in ("", None, ()) for row in rows)
        assert empty <= 0.01 * size, f"{field} is empty in {empty} rows"


def test_valueeval_labels_are_categories(public_data):
    rows = {row.id: row for row in public.valueeval23("test", folder=public_data)}
    assert rows["A26004"].stance == "against"
    assert rows["A26004"].labels == (
        "Achievement",
        "Security: personal",
        "Universalism: concern",
        "Universalism: tolerance",
    )


def test_fulcra_labels_are_signed_values(public_data):
    rows = public.fulcra(folder=public_data)
    assert dict(rows[1].labels) == {"universalism": -1.0, "benevolence": 1.0}
    assert rows[1].text == "Women" and rows[1].prompt.startswith("Who are more")
    labels = [label for row in rows for label in row.labels]
    assert {value for value, _ in labels} <= set(load_system().names)
    assert {sign for _, sign in labels} == {-1.0, 1.0}


def test_dictionary_names_the_ten_values(public_data):
    words = public.personal_values_dictionary(folder=public_data)
    assert set(words) == set(load_system().names)
    assert "accomplish" in words["achievement"]


def test_cad_nli_validation_shares_no_sentence(public_data):
    train, validation = (public.cad_nli(s, folder=public_data) for s in ("train", "validation"))
    sentences = [
        {t for r in rows for t in (r.premise, r.hypothesis)} for rows in (train, validation)
    ]
    assert not sentences[0] & sentences[1]
    assert 600 < len(validation) < 1100 and len(validation) % 5 == 0
    assert len(train) + len(validation) > 0.98 * 8330
    test = public.cad_nli("test", folder=public_data)
    assert {row.label for row in test} == {"entailment", "neutral", "contradiction"}
    with pytest.raises(CorpusError, match="lies inside e-SNLI dev"):
        public.cad_nli("dev", folder=public_data)


def test_preferences_share_their_prompt(public_data):
    for split, published in (("harmless", 2312), ("helpful", 2354)):
        rows = public.hh_rlhf(split, folder=public_data)
        assert 0.99 * published < len(rows) <= published
        assert all(row.prompt.startswith("Human:") for row in rows)
        assert not any("\n\nAssistant:" in row.chosen + row.rejected for row in rows)


def test_multiple_choice(public_data):
    question = public.mmlu("dev", folder=public_data)[5]
    assert question.subject == "anatomy" and len(question.choices) == 4
    assert question.choices[question.correct[0]] == "The second and third pharyngeal arches"
    assert any(len(q.correct) > 1 for q in public.truthfulqa("mc2", folder=public_data))


def test_blimp_paradigm(public_data):
    rows = public.blimp("causative", folder=public_data)
    assert len(rows) == 1000 and rows[0].good == "Aaron breaks the glass."
    with pytest.raises(CorpusError, match="no split 'causal'"):
        public.blimp("causal", folder=public_data)


def test_wikitext_articles_hold_the_whole_text(public_data):
    articles = public.wikitext2("test", folder=public_data)
    assert articles[0].startswith("= Robert <unk> =") and len(articles) > 50
    raw = (public_data / "wikitext2" / "test.txt").read_text("utf-8-sig")
    assert sum(len(a.split()) for a in articles) == len(raw.split())


def test_verdicts_and_moderation_labels(public_data):
    verdicts = {row.verdict for row in public.xstest_completions("gpt4", folder=public_data)}
    assert verdicts == {"full_compliance", "full_refusal", "partial_refusal"}
    first, *_, last = public.openai_moderation(folder=public_data)
    assert dict(first.labels)["self-harm"] is True and len(last.labels) <= 8


def test_topics_are_paraphrased(public_data):
    rows = public.valueconsistency("us", folder=public_data)
    assert {len(row.options) for row in rows} == {2}
    assert {stance for row in rows for _, stance in row.options} == {"supports", "opposes"}
    assert any(not row.is_rephrased and row.question == row.original for row in rows)


def test_without_the_data(tmp_path, monkeypatch):
    monkeypatch.delenv("VALIGN_DATA", raising=False)
    with pytest.raises(MissingDataError, match="VALIGN_DATA"):
        public.med()
    with pytest.raises(MissingDataError, match=r"MED\.tsv"):
        public.med(folder=tmp_path)
    monkeypatch.setenv("VALIGN_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"expected the file .*valueeval23"):
        public.valueeval23("test")


def test_unknown_split_names_the_others():
    with pytest.raises(CorpusError, match="train, validation, test, zhihu"):
        public.valueeval23("dev")


HUB = {
    "Anthropic/hh-rlhf": {"chosen": "\n\nHuman: hi\n\nAssistant: hello",
                          "rejected": "\n\nHuman: hi\n\nAssistant: no"},
    "truthfulqa/truthful_qa": {"question": "q", "mc1_targets": {"choices": ["a", "b"],
                                                                "labels": [0, 1]}},
    "cais/mmlu": {"subject": "s", "question": "q", "choices": list("wxyz"), "answer": 2},
    "nyu-mll/blimp": {"UID": "u", "field": "f", "sentence_good": "g", "sentence_bad": "b"},
    "databricks/databricks-dolly-15k": {"instruction": "i", "context": "", "response": "r",
                                        "category": "c"},
}  # fmt: skip


def test_hub_rows_become_the_same_rows(monkeypatch):
    asked = []

    def load_dataset(name, config=None, *, split, data_dir=None):
        asked.append((name, config, split, data_dir))
        return [HUB[name]]

    fake = types.ModuleType("datasets")
    fake.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", fake)
    (preference,) = public.hh_rlhf(hub="Anthropic/hh-rlhf")
    assert (preference.prompt, preference.chosen, preference.rejected) == (
        "Human: hi", "hello", "no")  # fmt: skip
    assert public.truthfulqa(hub="truthfulqa/truthful_qa")[0].correct == (1,)
    assert public.mmlu("dev", hub="cais/mmlu")[0].correct == (2,)
    assert public.blimp("causative", hub="nyu-mll/blimp")[0].good == "g"
    assert public.dolly_sample(hub="databricks/databricks-dolly-15k")[0].output == "r"
    assert asked[0] == ("Anthropic/hh-rlhf", None, "test", "harmless-base")
    assert asked[3] == ("nyu-mll/blimp", "causative", "train", None)


def test_hub_without_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDataError, match=r"valign\[hub\]"):
        public.mmlu(hub="cais/mmlu")
