"""Loading models from folders, and what is said when they cannot be loaded."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.lm.tiny import FAMILIES, PROMPTS, tiny_lm
from valign.lm import HostModel, ModelLoadError, generate


@pytest.fixture
def saved(tmp_path):
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_of_every_family_loads(family, tmp_path):
    lm = tiny_lm(family)
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    loaded = HostModel.load(tmp_path)
    assert loaded.dtype == torch.float32
    assert loaded.name == str(tmp_path)
    assert loaded.fingerprint == lm.fingerprint
    expected = generate(lm, PROMPTS, max_new_tokens=3)
    # The family's own tokenizer class may read the tiny word list in its own way.
    same_words = HostModel(loaded.model, lm.tokenizer)
    assert generate(same_words, PROMPTS, max_new_tokens=3).token_ids == expected.token_ids
    assert str(tmp_path) in repr(loaded)


def test_the_number_type_can_be_chosen(saved):
    assert HostModel.load(saved, dtype="bfloat16").dtype == torch.bfloat16
    assert HostModel.load(str(saved), dtype=torch.float16).dtype == torch.float16


def test_a_device_map_spreads_the_model(saved):
    pytest.importorskip("accelerate")
    lm = HostModel.load(saved, device={"": "cpu"})
    expected = generate(HostModel.load(saved), PROMPTS, max_new_tokens=3).token_ids
    assert generate(lm, PROMPTS, max_new_tokens=3).token_ids == expected


def test_an_adapter_folder_loads_with_its_base(saved, tmp_path):
    peft = pytest.importorskip("peft")
    lm = HostModel.load(saved)
    config = peft.LoraConfig(r=2, target_modules=["down_proj"], task_type="CAUSAL_LM",
                             init_lora_weights=False)  # fmt: skip
    model = peft.get_peft_model(lm.model, config)
    model.peft_config["default"].base_model_name_or_path = str(saved)
    model.save_pretrained(tmp_path / "adapter")
    lm.tokenizer.save_pretrained(tmp_path / "adapter")
    loaded = HostModel.load(tmp_path / "adapter")
    expected = generate(HostModel(model, lm.tokenizer), PROMPTS, max_new_tokens=3)
    assert generate(loaded, PROMPTS, max_new_tokens=3).token_ids == expected.token_ids
    plain = generate(HostModel.load(saved), PROMPTS, max_new_tokens=3)
    assert plain.token_ids != expected.token_ids


def test_a_missing_folder_is_named(tmp_path, monkeypatch):
    with pytest.raises(ModelLoadError, match=r"No such model folder: .*nowhere"):
        HostModel.load(tmp_path / "nowhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ModelLoadError, match=f"{tmp_path}/nowhere"):
        HostModel.load("~/nowhere")


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match=r"no config\.json.*save_pretrained"):
        HostModel.load(tmp_path)


def test_a_hub_name_without_a_hub_says_both_ways(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelLoadError, match=r"(?s)Cannot load .*Hub name"):
        HostModel.load("nobody/no-such-model")


def test_a_truncated_checkpoint_is_refused(saved):
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ModelLoadError, match="Cannot load"):
        HostModel.load(saved)


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_not_finite_are_refused_by_name(saved):
    def break_one(weights):
        weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")

    change_weights(saved, break_one)
    with pytest.raises(ModelLoadError, match=r"not finite.*layers\.1\.mlp\.up_proj"):
        HostModel.load(saved)


def test_weights_that_are_missing_are_not_made_up(saved):
    change_weights(saved, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelLoadError, match=r"lacks weights.*layers\.1\.mlp\.up_proj"):
        HostModel.load(saved)


def test_broken_settings_are_refused(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(ModelLoadError, match="Cannot load"):
        HostModel.load(saved)
