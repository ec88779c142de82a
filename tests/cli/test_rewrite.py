"""`valign rewrite`: one text, batches with resume, bad input; the world's own loop."""

import json

import pytest

from tests.cli.conftest import write_jsonl
from valign.world.rewrites import rewrites

SOURCE = rewrites(1, split="heldout")[0].source


@pytest.fixture
def ask(command, model, words):
    def run(*more):
        return command(
            "rewrite", *more, "--model", model, "--template", "world", "--detector", words,
            "--rounds", 1, "--candidates", 2, "--max-new-tokens", 8,
        )  # fmt: skip

    return run


def test_one_text_with_every_attempt(command):
    said = command("rewrite", SOURCE, "--profile", "power=+1", "--json", "--rounds", 1,
                   "--candidates", 2, "--max-new-tokens", 40)  # fmt: skip
    assert said.code == 0, said
    made = json.loads(said.out)
    assert made["source"] == SOURCE and made["target"]["power"] == 1
    assert len(made["attempts"]) in (1, 3)
    assert made["text"] == made["attempts"][made["chosen"]]["text"]
    assert made["passed"] == (made["warning"] is None)


def test_a_text_that_already_fits_stays(command):
    said = command("rewrite", SOURCE, "--profile", "")
    assert said.code == 0 and said.out.strip() == SOURCE
    assert "already" in said.err


def test_a_batch_goes_on_where_it_stopped(ask, tmp_path):
    rows = [{"text": f"we keep the home w{i} today", "profile": "power=+1"} for i in range(20)]
    rows[3]["profile"] = "security=-1"
    file, to = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert ask("--file", file, "--out", to).code == 0
    whole = to.read_text()
    made = [json.loads(line) for line in whole.splitlines()]
    assert [m["source"] for m in made] == [r["text"] for r in rows]
    assert made[3]["target"]["security"] == -1
    lines = whole.splitlines(keepends=True)
    to.write_text("".join(lines[:16]) + lines[16][:30])  # stopped while writing
    assert ask("--file", file, "--out", to).code == 0
    assert to.read_text() == whole
    assert "All 20" in ask("--file", file, "--out", to).err
    other = ask("--file", file, "--out", to, "--seed", 1)
    assert other.code == 2 and "other settings: seed." in other.error
    rows[2]["profile"] = "power=-1"
    other = ask("--file", write_jsonl(file, rows), "--out", to)
    assert other.code == 2 and "other texts or wishes (line 3)" in other.error
    assert to.read_text() == whole


def test_bad_requests_are_refused(refused, tmp_path):
    assert "one text, or a file" in refused("rewrite")
    assert "not both" in refused("rewrite", "a", "-i", "b", "-p", "power=1")
    assert "one way" in refused("rewrite", "a")
    assert "pwoer" in refused("rewrite", "a", "-p", "pwoer=1")
    assert "--out keeps" in refused("rewrite", "a", "-p", "power=1", "--out", tmp_path / "o")
    assert "No template" in refused("rewrite", "a", "-p", "power=1", "--template", "nope")
    file = write_jsonl(tmp_path / "in.jsonl", [{"text": "a", "profile": "power=1"}, {"txt": "b"}])
    assert "line 2" in refused("rewrite", "--file", file)
    write_jsonl(file, [{"text": "a"}])
    assert "one way" in refused("rewrite", "--file", file)
    to = write_jsonl(tmp_path / "out.jsonl", [{"source": "other"}])
    assert "how its results were made" in refused(
        "rewrite", "--file", file, "-p", "power=1", "--out", to
    )


def test_visa_is_fitted_as_any_method_and_generates(command, model, corpus, tmp_path):
    said = command("fit", "visa", "--model", model, "--corpus", corpus, "--toward", "benevolence",
                   "--out", tmp_path / "c", "--set", "max_new_tokens=8", "--json")  # fmt: skip
    assert said.code == 0, said
    assert json.loads(said.out)["method"] == "visa"
    said = command("generate", "rest or work ?", "--model", model, "--control", tmp_path / "c",
                   "--max-new-tokens", 6, "--json")  # fmt: skip
    assert said.code == 0, said
    assert json.loads(said.out)["receipt"]["rewritten"] == "benevolence=+1"


def test_visa_stands_in_the_same_table_without_a_dose(command, run_command, model, tmp_path):
    said = command(*run_command(model, tmp_path / "run", "--set", "max_new_tokens=8",
                                "--set", "template=world", method="visa"))  # fmt: skip
    assert said.code == 0, said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    block = next(b for b in results["blocks"] if b["method"].startswith("visa"))
    assert block["kind"] == "text" and block["dose"] is None
    assert block["targets"][0]["dose"] is None
    assert (tmp_path / "run" / "report.html").is_file()
