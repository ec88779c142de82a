"""Controls on the Hub: what goes up comes down, by hash, as data; the card says what is known."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open

import valign
from tests.deploy.cases import control, edit, gate
from tests.deploy.fake_hub import serve
from tests.lm.reference import TARGET
from tests.lm.tiny import PROMPTS, tiny_lm
from tests.report.fake import fake_results
from valign.control import ControlFileError, TextControl
from valign.deploy import HubError, from_pretrained, push_to_hub, save_pretrained
from valign.deploy.card import card
from valign.lm import generate

REPO = "somebody/benevolence"


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def steering(lm):
    made = control(
        edit(lm, "add", "resid:1"), edit(lm, "push", "neurons:0"), gate=gate(lm, opens=True)
    )
    dose = {"asked": 0.5, "p95": 0.51, "mean": 0.1, "strength": 2.0, "tokens": 640}
    note = {"method": "caa", "model": "org/base-model", "corpus": "toy", "dose": dose}
    return replace(made, provenance=note)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Without Xet, whose storage is no HTTP server: files go up by the LFS calls."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serve() as running:
        yield running


def same(one, other) -> bool:
    return one.provenance == other.provenance and all(
        torch.equal(a.tensors[name], b.tensors[name])
        for a, b in zip(one.edits, other.edits, strict=True)
        for name in a.tensors
    )


def test_what_goes_up_comes_down_and_acts_alike(hub, lm, steering):
    commit = push_to_hub(steering, REPO, endpoint=hub.url, token="hf_x")
    assert set(hub.files(REPO)) == {"control.safetensors", "control.json", "README.md"}
    found = from_pretrained(REPO, endpoint=hub.url)
    assert same(found, steering)
    assert generate(lm, PROMPTS, found).token_ids == generate(lm, PROMPTS, steering).token_ids
    assert commit == hub.oid(0)


def test_a_commit_stays_what_it_was(hub, steering):
    first = push_to_hub(steering, REPO, endpoint=hub.url, token="hf_x")
    second = push_to_hub(steering.scaled(2), REPO, endpoint=hub.url, token="hf_x")
    assert first != second
    old, new = (from_pretrained(REPO, revision=r, endpoint=hub.url) for r in (first, None))
    assert new.edits[0].strength == 2 * old.edits[0].strength


def test_only_two_data_files_are_fetched(hub, steering):
    push_to_hub(steering, REPO, endpoint=hub.url, token="hf_x")
    hub.commits[REPO][-1]["control.py"] = b"raise SystemExit"
    hub.asked.clear()
    from_pretrained(REPO, endpoint=hub.url)
    assert {path.rsplit("/", 1)[1] for path in hub.asked} == {"control.json", "control.safetensors"}


def test_a_tampered_control_is_refused(hub, steering):
    push_to_hub(steering, REPO, endpoint=hub.url, token="hf_x")
    files = hub.commits[REPO][-1]
    data = bytearray(files["control.safetensors"])
    data[-1] ^= 1
    files["control.safetensors"] = bytes(data)
    with pytest.raises(HubError, match="damaged or tampered"):
        from_pretrained(REPO, endpoint=hub.url)


def test_a_hash_that_was_agreed_on_must_match(hub, steering):
    push_to_hub(steering, REPO, endpoint=hub.url, token="hf_x")
    digest = json.loads(hub.files(REPO)["control.json"])["sha256"]["control.safetensors"]
    assert same(from_pretrained(REPO, endpoint=hub.url, sha256=digest), steering)
    with pytest.raises(HubError, match="not the one you asked for"):
        from_pretrained(REPO, endpoint=hub.url, sha256="0" * 64)


def test_what_is_not_there_is_named(hub):
    with pytest.raises(HubError, match="Cannot fetch a control from nobody/nothing"):
        from_pretrained("nobody/nothing", endpoint=hub.url)
    with pytest.raises(HubError, match="neither a folder nor the name"):
        from_pretrained("../nobody/nothing")
    with pytest.raises(HubError, match="neither a folder nor the name"):
        push_to_hub(TextControl(target=TARGET, instruction="care"), "a/b/c")


def test_a_private_repository_needs_its_token(hub, steering):
    push_to_hub(steering, REPO, endpoint=hub.url, token="hf_x", private=True)
    hub.private.add(REPO)
    with pytest.raises(HubError, match="Cannot fetch"):
        from_pretrained(REPO, endpoint=hub.url, token=False)
    assert same(from_pretrained(REPO, endpoint=hub.url, token="hf_x"), steering)


def test_a_hub_that_cannot_be_reached_is_an_error_of_ours(steering):
    with pytest.raises(HubError, match="Cannot upload to somebody/benevolence"):
        push_to_hub(steering, REPO, endpoint="http://127.0.0.1:9", token="hf_x")


def test_the_environment_names_the_hub(hub, steering, tmp_path):
    """As a user has it: HF_ENDPOINT, no arguments, in a process of its own."""
    path = steering.save(tmp_path / "own")
    code = (
        "import sys, valign; from valign.deploy import push_to_hub, from_pretrained; "
        "c = valign.load_control(sys.argv[1]); push_to_hub(c, 'me/mine'); "
        "print(from_pretrained('me/mine').method)"
    )
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(valign.__file__).parents[1]),
    }  # fmt: skip
    said = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True
    )
    assert said.stdout.strip() == "caa", said.stderr
    assert "me/mine" in hub.commits


def test_a_folder_is_read_like_a_repository(steering, tmp_path):
    folder = save_pretrained(steering, tmp_path / "kept")
    assert same(from_pretrained(folder), steering)
    with safe_open(folder / "control.safetensors", framework="pt") as file:
        assert "valign" in file.metadata()
    (folder / "control.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(HubError, match="damaged or tampered"):
        from_pretrained(folder)


def test_a_folder_without_an_index_says_what_reads_it(steering, tmp_path):
    steering.save(tmp_path)
    with pytest.raises(HubError, match=r"valign\.load_control"):
        from_pretrained(tmp_path)
    for broken in ("{", "[]", '{"format": "valign-hub/1", "sha256": {"control.safetensors": 1}}'):
        (tmp_path / "control.json").write_text(broken)
        with pytest.raises(HubError, match=r"no readable control\.json"):
            from_pretrained(tmp_path)


def test_a_hash_over_something_else_than_a_control_is_no_control(steering, tmp_path):
    import hashlib

    folder = save_pretrained(steering, tmp_path)
    (folder / "control.safetensors").write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    index = {"format": "valign-hub/1", "sha256": {"control.safetensors": digest}}
    (folder / "control.json").write_text(json.dumps(index))
    with pytest.raises(ControlFileError):
        from_pretrained(folder)


def test_the_card_says_what_is_known(steering):
    said = card(steering, repo=REPO)
    assert "# benevolence=+1" in said and "base_model: org/base-model" in said
    assert "0.51 nats" in said and "0.5 were asked for" in said and "640 tokens" in said
    assert "| resid:1 | add | every token |" in said and "gate opens" in said
    assert "gain, leakage and tax are unknown" in said and "corpus toy" in said
    assert f'from_pretrained("{REPO}")' in said and "## Limits" in said


def test_the_card_quotes_the_row_of_its_own_method_and_target(steering):
    results = fake_results()
    block = next(b for b in results.blocks if b.role == "method" and b.targets)
    row = block.targets[0]
    from valign.values import Profile, load_system

    own = replace(
        steering,
        target=Profile.parse(row.target, load_system(results.system.name)),
        provenance={"method": block.method, "dose": {"asked": block.dose, "p95": 0.5}},
    )
    said = card(own, results=results)
    gain = row.metrics.gain
    assert f"| gain | {gain.value:.3f} | {gain.low:.3f} to {gain.high:.3f} | {gain.n} |" in said
    assert results.detectors.judge in said.replace("\\", "")
    other = card(replace(own, provenance={"method": "another"}), results=results)
    assert "gain, leakage and tax are unknown" in other


def test_words_in_a_card_stay_words():
    words = "care</blockquote><script>alert(1)</script>\n# Heading | [x](javascript:1) `code`"
    said = card(TextControl(target=TARGET, instruction=words, provenance={"model": '")\n```'}))
    assert "<script" not in said and "\n# Heading" not in said
    assert r"\](javascript" in said and said.count("```") == 2
