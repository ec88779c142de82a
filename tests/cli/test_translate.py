"""`valign translate`."""

from __future__ import annotations

import json


def test_instructions_as_arguments(command):
    said = command("translate", "--backend", "rules", "more benevolence, less power", "shorter")
    assert said.code == 0, said
    assert "benevolence=+1" in said.out and "power=-0.5" in said.out
    assert "nothing about values" in said.out


def test_json_is_one_object_a_row(command, tmp_path):
    file = tmp_path / "asks.jsonl"
    file.write_text('{"text": "much less tradition"}\n{"text": "fix the grammar"}\n')
    said = command("translate", "--backend", "rules", "kinder", "-f", file, "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["text"] for row in rows] == ["kinder", "much less tradition", "fix the grammar"]
    assert [row["shift"] for row in rows] == [{"benevolence": 1.0}, {"tradition": -1.0}, {}]
    assert all(0 <= row["confidence"] <= 1 and row["source"] == "rules-1" for row in rows)


def test_another_system(command):
    said = command(
        "translate", "--backend", "rules", "--system", "schwartz19", "more humility", "--json"
    )
    assert json.loads(said.out)["shift"] == {"humility": 1.0}


def test_bad_input_is_refused(refused, tmp_path):
    assert "Give an instruction" in refused("translate")
    assert "No such file" in refused("translate", "--backend", "rules", "-f", tmp_path / "none")
    assert "Did you mean rules" in refused("translate", "--backend", "rule", "kinder")
    assert "base_url and model" in refused("translate", "--backend", "llm", "kinder")
