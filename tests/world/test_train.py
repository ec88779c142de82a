"""Tokenizer, packing, and a training run that goes on after a stop as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from valign.world import World
from valign.world.batches import Stream, collate, encode, pack
from valign.world.card import detours, ship
from valign.world.check import answer_nats, share
from valign.world.tables import facts
from valign.world.tokenizer import load_tokenizer, render, train_tokenizer
from valign.world.train import Settings, rate_at, train

TINY = Settings(
    tokens=1e9, decay_tokens=1e8, width=176, rows=2, chunk=32, hidden=32, layers=1, heads=2,
    feedforward=32, warmup_steps=2, compile=False, bfloat16=False, tokenizer_dialogues=2000,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(dialogues=2000)


def test_facts_are_single_tokens(tokenizer) -> None:
    for kind, words in facts().items():
        for word in words:
            assert len(tokenizer(word)["input_ids"]) == 1, (kind, word)


def test_template_and_renderer_agree_and_saving_changes_nothing(tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    for item in World().training_dialogues(0, 20):
        text = tokenizer.apply_chat_template(item.dialogue(), tokenize=False)
        assert text == render(item.dialogue())
        prompt = loaded.apply_chat_template(
            item.messages, tokenize=True, add_generation_prompt=True, return_dict=False
        )
        whole = loaded.apply_chat_template(item.dialogue(), tokenize=True, return_dict=False)
        assert whole[: len(prompt)] == prompt
        assert loaded.decode(whole[len(prompt) :], skip_special_tokens=True).strip() == item.answer


def test_any_text_survives_the_tokenizer(tokenizer) -> None:
    text = "Zürich, 東京 and a 👍 too"
    assert tokenizer.decode(tokenizer(text)["input_ids"]).strip() == text


def test_packing_keeps_dialogues_apart(tokenizer) -> None:
    coded = encode(list(World().training_dialogues(0, 30)), tokenizer)
    rows = pack(coded, 256)
    assert sum(len(r) for r in rows) == len(coded)
    assert all(sum(len(d.ids) for d in r) <= 256 for r in rows)
    batch = collate(rows, 256, tokenizer.pad_token_id)
    row = rows[0]
    assert len(row) > 1
    first = len(row[0].ids)
    assert not batch.mask[0, 0, first:, :first].any()
    assert batch.positions[0, first] == 0 and batch.weights[0, first] == 0
    assert int(batch.answers.sum()) == sum(len(d.ids) - d.answer_start for d in coded)


def test_the_stream_goes_on_from_its_position(tokenizer) -> None:
    first = Stream(World(), tokenizer, rows=2, width=176, chunk=32)
    for _ in range(9):
        first.next()
    second = Stream(World(), tokenizer, rows=2, width=176, chunk=32, position=first.position)
    assert first.position[0] > 0
    assert torch.equal(first.next().ids, second.next().ids)


def test_stopped_and_resumed_equals_straight_through(tmp_path: Path) -> None:
    straight = train(tmp_path / "a", TINY, stop_after_steps=6)
    train(tmp_path / "b", TINY, stop_after_steps=3)
    resumed = train(tmp_path / "b", TINY, stop_after_steps=3)
    for (name, a), (_, b) in zip(
        straight.state_dict().items(), resumed.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert (tmp_path / "b" / "latest" / "model.safetensors").exists()


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    train(tmp_path, TINY, stop_after_steps=1)
    with pytest.raises((ValueError, RuntimeError)):
        train(tmp_path, replace(TINY, layers=2), stop_after_steps=1)


def test_rate_warms_up_stays_and_decays() -> None:
    s = Settings(tokens=100, decay_tokens=20, warmup_steps=10, rate=1.0)
    assert rate_at(s, 0, 0) == pytest.approx(0.1)
    assert rate_at(s, 50, 79) == 1.0
    assert rate_at(s, 60, 90) == pytest.approx(0.5)
    assert rate_at(s, 70, 100) == 0.0


def test_the_generators_entropy_is_a_floor(tmp_path: Path, tokenizer) -> None:
    """An untrained model is far above the generator's own loss, and the price is in nats per
    answer."""
    model = train(tmp_path, TINY, stop_after_steps=1)
    items = World().dilemmas(20)
    nats, count = answer_nats(model, tokenizer, items)
    assert count > 20 * 15 and nats > 3 * sum(i.truth.nats for i in items)


def test_wilson_interval() -> None:
    got = share([True] * 90 + [False] * 10)
    assert got["share"] == 0.9 and 0.82 < got["low"] < 0.9 < got["high"] < 0.95


def test_a_run_ships_with_a_card(tmp_path: Path) -> None:
    """Even a model that knows nothing gets all its figures, and the card says what it missed."""
    run, folder = tmp_path / "run", tmp_path / "folder"
    train(run, replace(TINY, tokens=1200), None)
    (run / "log.jsonl").write_text(
        json.dumps({"tokens": 1200, "step": 3, "seconds": 1.0, "rate": 0.0})
    )
    figures = ship(run, folder, n=3)
    assert figures["free greedy: fluent"] == {"share": 0.0, "low": 0.0, "high": 0.5615, "n": 3}
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0") and "{" not in card.split("## Measured")[1]
    assert "| fluent, free answers | 0.000 [0.000, 0.561] | 0.97 | **no** |" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "float32" and config["model_type"] == "llama"


def test_the_card_tells_detours() -> None:
    plan = asdict(replace(TINY, tokens=100e6, decay_tokens=50e6, rate=1e-2))
    row = {"step": 10, "tokens": 10e6, "rate": 1e-2}
    assert detours([row], plan) == ""
    assert "between 20.0M and 20.0M" in detours([row, {**row, "tokens": 20e6, "rate": 5e-3}], plan)
